"""data=sts: soft-tissue sarcoma patients with FDG-PET, CT and T1 MR in one frame of reference.

Source: Vallières et al., TCIA 2015, doi:10.7937/K9/TCIA.2015.7GO2GSKS and Phys Med Biol 2015,
doi:10.1088/0031-9155/60/14/5471, in the NIfTI form of the IBSI validation data (theibsi/data_sets),
where PET is in SUV, MR is bias-corrected and the field of view is cut 5 cm around the tumour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umdseg.data.dataset import PairedDataset
from umdseg.data.options import DataOptions
from umdseg.data.sources.base import Source
from umdseg.errors import UserError
from umdseg.seeds import derive
from umdseg.vocabulary import MODALITIES, UNITS, Modality, Scan, Subject

_FILES: dict[Modality, tuple[str, str | None]] = {
    "ct": ("CT", None),
    "pet": ("PET", "FDG"),
    "mr": ("MR_T1", "T1"),
}


@dataclass
class StsOptions(DataOptions):
    """Options of the sarcoma patients.

    Attributes:
        root: folder that holds `nifti/STS_*` or `STS_*`, any subset of patients, or one patient's folder.
        folds: the patients are dealt into this many parts.
        fold: the part that is tested; the others train.
        val_share: share of the training patients set aside for validation.
    """

    name: str = "sts"
    root: str | None = None
    folds: int = 3
    fold: int = 0
    val_share: float = 0.0


class StsSource(Source):
    """Finds the patients and splits them by patient, seeded."""

    Options = StsOptions

    def __init__(self, options: StsOptions) -> None:
        self.options = options

    def read(self, seed: int) -> PairedDataset:
        """Read the dataset; patients without CT stay, as patients without CT.

        Raises:
            UserError: no root given, no patients in it, an image without its mask, unusable headers,
                or folds that make no sense.
        """
        root = _root(self.options.root)
        folders = patient_folders(root)
        scans = {folder.name: _scans(folder) for folder in folders}
        split = assign(scans, seed, self.options.folds, self.options.fold, self.options.val_share)
        subjects = tuple(Subject(name, own, split[name], "", "sts") for name, own in scans.items())
        return PairedDataset("sts", subjects, {"tumour": 1}, folders[0].parent)


def patient_folders(root: Path) -> list[Path]:
    """Folders of the patients below `root` (or `root` itself when it is one), by name."""
    if root.name.startswith("STS_") and any(root.glob("*_image.nii.gz")):
        return [root]
    for parent in (root / "nifti", root):
        folders = sorted(p for p in parent.glob("STS_*") if p.is_dir())
        if folders:
            return folders
    expected = "folders STS_001, STS_002, ... in it or in its nifti/"
    raise UserError("no patients found", where=root, expected=expected)


def assign(
    scans: Mapping[str, Mapping[Modality, Scan]], seed: int, folds: int, fold: int, val_share: float
) -> dict[str, str]:
    """Patient -> split. Complete patients are dealt first, so that every fold tests PET/CT/MR pairs.

    A patient alone is tested: there is nobody to train on.
    """
    if folds < 2 or not 0 <= fold < folds or not 0 <= val_share < 1:
        raise UserError(
            f"folds={folds}, fold={fold}, val_share={val_share}",
            where="data.folds, data.fold, data.val_share",
            expected="folds >= 2, fold from 0 to folds - 1, val_share from 0 up to 1",
        )
    if len(scans) == 1:
        return dict.fromkeys(scans, "test")
    order = sorted(scans, key=lambda name: (len(scans[name]) < len(MODALITIES), derive(seed, "sts", name)))
    train = [name for i, name in enumerate(order) if i % folds != fold]
    held = round(val_share * len(train))
    val = set(sorted(train, key=lambda name: derive(seed, "sts-val", name))[:held])
    return {
        name: "test" if i % folds == fold else "val" if name in val else "train"
        for i, name in enumerate(order)
    }


def _root(given: str | None) -> Path:
    if not given:
        raise UserError(
            "data=sts needs the folder of the patients",
            where="data.root",
            expected="python train.py data=sts data.root=FOLDER, where FOLDER holds nifti/STS_* or STS_*",
        )
    root = Path(given).expanduser()
    if not root.is_dir():
        expected = "a folder with nifti/STS_* or STS_*"
        raise UserError("folder is missing", where=f"data.root={root}", expected=expected)
    return root


def _scans(folder: Path) -> dict[Modality, Scan]:
    scans: dict[Modality, Scan] = {}
    for modality, (stem, tracer) in _FILES.items():
        image, label = folder / f"{stem}_image.nii.gz", folder / f"{stem}_mask.nii.gz"
        if not image.is_file():
            continue
        if not label.is_file():
            what = f"mask of subject {folder.name} is missing"
            raise UserError(what, where=label, expected=f"a mask beside {image.name}")
        scans[modality] = Scan(image, modality, UNITS[modality], label, tracer)
    if not scans:
        names: Sequence[str] = [f"{stem}_image.nii.gz" for stem, _ in _FILES.values()]
        expected = f"one of {', '.join(names)}"
        raise UserError(f"subject {folder.name} has no image", where=folder, expected=expected)
    return scans
