"""AMOS 2022 as its archive unpacks (readme.md, dataset.json of doi:10.5281/zenodo.7262581)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

PARTS = {"Tr": (1, 4, 507, 600), "Va": (8, 541), "Ts": (3,)}


def make(root: Path, volumes: ModuleType) -> dict[str, str]:
    """Write it; returns the options that read it."""
    for part, numbers in PARTS.items():
        for number in numbers:
            name = f"amos_{number:04d}.nii.gz"
            volumes.image(root / f"images{part}" / name, "ct" if number <= 500 else "mr", number)
            if part != "Ts":
                volumes.label(root / f"labels{part}" / name, range(1, 16))
    (root / "dataset.json").write_text("{}")
    # what a Mac's archiver leaves behind
    (root / "imagesTr" / "._amos_0001.nii.gz").write_bytes(b"junk")
    return {"root": str(root)}
