"""ENHANCE.PET 1.6k as its data card describes it (ENHANCE-PET/MOOSE, DATA_CARD.md)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

STUDIES = ("0001", "0002", "0003", "0010", "1597")
# group -> number of structures; 130 in all
GROUPS = {
    "Body-Composition": 3,
    "Cardiac": 13,
    "Muscles": 10,
    "Organs": 18,
    "Peripheral-Bones": 31,
    "Ribs": 27,
    "Vertebrae": 28,
}


def make(root: Path, volumes: ModuleType) -> dict[str, str]:
    """Write it; the PET lies on a grid of its own. Returns the options that read it."""
    data = root / "imaging-data"
    for study in STUDIES:
        volumes.image(data / "images" / "CT" / f"{study}.nii.gz", "ct", int(study))
        volumes.image(data / "images" / "PT" / f"{study}.nii.gz", "pet", int(study), coarse=True)
        first = 1
        for group, count in GROUPS.items():
            # ids start at 1 in each group; the blocks of different groups do not touch
            array = volumes.blocks(range(first, first + count)).astype("int16")
            array[array > 0] -= first - 1
            volumes.save(data / "ground-truth" / group / f"{study}.nii.gz", array.astype("uint8"))
            first += count
    (root / "labels.json").write_text("{}")
    return {"root": str(root)}
