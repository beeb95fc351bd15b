"""TotalSegmentator's training data as it unpacks (doi:10.5281/zenodo.6802613, 10.5281/zenodo.11367004)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

SPLITS = {"s0000": "train", "s0001": "val", "s0004": "test", "s0011": "train"}
CT = {"spleen": 1, "kidney_right": 2, "kidney_left": 3, "liver": 5, "aorta": 52, "costal_cartilages": 117}
MR = {"spleen": 1, "liver": 5, "lung_left": 10, "brain": 50}


def make(root: Path, volumes: ModuleType, mr: bool = False, ids: Mapping[str, int] | None = None) -> dict:
    """Write it with a few of the structures; returns the options that read it."""
    ids = ids or (MR if mr else CT)
    for number, name in enumerate(SPLITS):
        modality, stem = ("mr", "mri") if mr else ("ct", "ct")
        volumes.image(root / name / f"{stem}.nii.gz", modality, number)
        for structure, id in ids.items():
            volumes.mask(root / name / "segmentations" / f"{structure}.nii.gz", id)
    rows = [f"{name};54;f;C;ct thorax;{split}" for name, split in SPLITS.items()]
    text = "\n".join(["image_id;age;gender;institute;study_type;split", *rows])
    (root / "meta.csv").write_text(text + "\n", encoding="utf-8-sig")
    return {"root": str(root), "structures": list(ids)}
