"""Sarcoma patients as in the IBSI validation data (theibsi/data_sets, ibsi_validation/nifti)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType


def make(root: Path, volumes: ModuleType) -> dict[str, str]:
    """Write it, one patient without CT; returns the options that read it."""
    for number in (1, 2, 5, 11):
        folder = root / "nifti" / f"STS_{number:03d}"
        for stem, modality in (("CT", "ct"), ("PET", "pet"), ("MR_T1", "mr")):
            if (number, modality) != (11, "ct"):
                volumes.image(folder / f"{stem}_image.nii.gz", modality, number, coarse=modality == "pet")
                volumes.label(folder / f"{stem}_mask.nii.gz", [1], coarse=modality == "pet")
    return {"root": str(root)}
