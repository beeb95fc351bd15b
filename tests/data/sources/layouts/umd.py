"""UMD as this project guesses it: nothing about its files has been published."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType


def make(root: Path, volumes: ModuleType) -> dict[str, str]:
    """Write it; returns the options that read it."""
    for cohort, anatomy in (("petct", "ct"), ("petmr", "mr")):
        for number in (1, 2, 3, 4):
            folder = root / cohort / f"{number:03d}"
            volumes.image(folder / f"{'mri' if anatomy == 'mr' else 'CT'}.nii.gz", anatomy, number)
            volumes.image(folder / "PET.nii.gz", "pet", number, coarse=True)
            volumes.label(folder / "mask.nii.gz", range(1, 14))
    return {"root": str(root)}
