"""SynthRAD2023 (NIfTI) and 2025 (MetaImage) as they unpack (arXiv:2303.16320, arXiv:2502.17609)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np

IDS = {"brain": ("1BA001", "1BA005", "1BB010", "1BC002"), "pelvis": ("1PA001", "1PC084")}


def make(root: Path, volumes: ModuleType) -> dict[str, str]:
    """Write the 2023 layout; returns the options that read it."""
    for region, names in IDS.items():
        for number, name in enumerate(names):
            folder = root / "Task1" / region / name
            volumes.image(folder / "ct.nii.gz", "ct", number)
            volumes.image(folder / "mr.nii.gz", "mr", number)
            volumes.save(folder / "mask.nii.gz", outline(volumes))
        (root / "Task1" / region / "overview").mkdir()
    return {"root": str(root)}


def make_2025(root: Path, volumes: ModuleType) -> dict[str, str]:
    """Write the 2025 layout."""
    import SimpleITK as sitk

    for region, name in (("HN", "1HNA001"), ("HN", "1HND014"), ("TH", "1THB011"), ("AB", "1ABA005")):
        folder = root / "synthRAD2025_Task1_Train" / "Task1" / region / name
        for stem in ("ct", "mr"):
            volumes.image(folder / f"{stem}.nii.gz", stem)
        volumes.save(folder / "mask.nii.gz", outline(volumes))
        for path in list(folder.glob("*.nii.gz")):
            sitk.WriteImage(sitk.ReadImage(str(path)), str(folder / path.name.replace(".nii.gz", ".mha")))
            path.unlink()
    return {"root": str(root)}


def outline(volumes: ModuleType) -> np.ndarray:
    """1 in the body."""
    array = np.zeros(volumes.SHAPE, np.uint8)
    array[1:-1, 1:-1] = 1
    return array
