"""autoPET in its two layouts, and the organ labels made for it, under their published names.

nnU-Net: doi:10.57754/FDAT.6gjsg-zcg93. Per study: doi:10.57754/FDAT.wf9fy-txq84. AutoPET-Organ:
YichiZhang98/SegAnyPET. DAP Atlas: alexanderjaus/AtlasDataset.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

# two studies of one patient; blanks as in the archive
FDG = {
    "0168f65af8": ["04-04-2003-NA-PET-CT Ganzkoerper  primaer mit KM-82224"],
    "a4cd2b10de": [
        "10-15-2005-NA-PET-CT Ganzkoerper  primaer mit KM-78514",
        "03-01-2006-NA-PET-CT Ganzkoerper nativ u. mit KM-15665",
    ],
    "c38b168f1a": ["04-15-2006-NA-PET-CT Ganzkoerper  primaer mit KM-47644"],
}
PSMA = {"95b833d46f153cd2": ["2018-04-16", "2017-11-24"], "ffcaa75377465b37": ["2018-03-04"]}


def cases() -> list[str]:
    """Cases of the nnU-Net layout."""
    fdg = [f"fdg_{patient}_{study}" for patient, all in FDG.items() for study in all]
    return fdg + [f"psma_{patient}_{study}" for patient, all in PSMA.items() for study in all]


def make(root: Path, volumes: ModuleType) -> dict[str, str]:
    """Write the nnU-Net layout; returns the options that read it."""
    for number, case in enumerate(cases()):
        volumes.image(root / "imagesTr" / f"{case}_0000.nii.gz", "ct", number)
        volumes.image(root / "imagesTr" / f"{case}_0001.nii.gz", "pet", number)
        volumes.label(root / "labelsTr" / f"{case}.nii.gz", [1])
    tests = [["0168f65af8", "95b833d46f153cd2"], ["a4cd2b10de"]]
    folds = [{"val": [c for c in cases() if c.split("_")[1] in people]} for people in tests]
    for fold in folds:
        fold["train"] = [case for case in cases() if case not in fold["val"]]
    (root / "splits_final.json").write_text(json.dumps(folds))
    return {"root": str(root)}


def make_studies(root: Path, volumes: ModuleType) -> dict[str, str]:
    """Write the layout of a folder a study; the original CT has a grid of its own."""
    for patient, all in FDG.items():
        for number, study in enumerate(all):
            folder = root / f"PETCT_{patient}" / study
            volumes.image(folder / "CT.nii.gz", "ct", number)
            for name, modality in (("CTres", "ct"), ("SUV", "pet"), ("PET", "pet")):
                volumes.image(folder / f"{name}.nii.gz", modality, number, coarse=True)
            volumes.label(folder / "SEG.nii.gz", [1], coarse=True)
    return {"root": str(root)}


def organ(folder: Path, volumes: ModuleType, coarse: bool = False) -> None:
    """AutoPET-Organ: the right middle lobe is 11 in some studies and 12 in others."""
    for patient, study in (("0168f65af8", FDG["0168f65af8"][0]), ("a4cd2b10de", FDG["a4cd2b10de"][1])):
        lobe = 11 if patient.startswith("0") else 12
        path = folder / f"PETCT_{patient}_{study.replace('  ', ' ')}_.nii.gz"
        volumes.label(path, [*range(1, 11), lobe], coarse)


def dap(folder: Path, volumes: ModuleType) -> None:
    """DAP Atlas: subject and the last five digits of the study."""
    for patient, digits in (("0168f65af8", "82224"), ("a4cd2b10de", "15665"), ("c38b168f1a", "47644")):
        volumes.label(folder / f"AutoPET_{patient}_{digits}.nii.gz", [1, 2, 13, 15, 26, 67, 90, 144])
