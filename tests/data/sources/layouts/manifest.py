"""A manifest as a user writes it by hand."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

COLUMNS = "subject,modality,image,label,units,tracer_or_sequence,split,site"


def make(root: Path, volumes: ModuleType, anatomy: str = "ct") -> dict[str, str]:
    """Write four pairs; returns the options that read them."""
    rows = [COLUMNS]
    for number, split in enumerate(("train", "train", "val", "test")):
        name = f"P{number:03d}"
        for modality, units in ((anatomy, "HU" if anatomy == "ct" else "a.u."), ("pet", "SUV")):
            coarse = modality == "pet"
            volumes.image(root / name / f"{modality}.nii.gz", modality, number, coarse)
            volumes.label(root / name / f"{modality}_label.nii.gz", [1, 5], coarse)
            files = f"{name}/{modality}.nii.gz,{name}/{modality}_label.nii.gz"
            rows.append(f"{name},{modality},{files},{units},,{split},site{number % 2}")
    (root / "subjects.csv").write_text("\n".join(rows) + "\n")
    (root / "subjects.yaml").write_text("structures: {liver: 5, spleen: 1}\n")
    return {"manifest": str(root / "subjects.csv")}


def make_petmri(root: Path, volumes: ModuleType) -> dict[str, str]:
    """The same with MR for CT."""
    return make(root, volumes, "mr")
