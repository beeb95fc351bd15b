"""data=sts: soft-tissue sarcoma patients with FDG-PET, CT and T1 MR in one frame of reference.

Source: Vallières et al., TCIA 2015, doi:10.7937/K9/TCIA.2015.7GO2GSKS and Phys Med Biol 2015,
doi:10.1088/0031-9155/60/14/5471, in the NIfTI form of the IBSI validation data (theibsi/data_sets),
where PET is in SUV, MR is bias-corrected and the field of view is cut 5 cm around the tumour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umdseg import anatomy
from umdseg.data.dataset import PairedDataset
from umdseg.data.sources.base import Listing, RootOptions, Source
from umdseg.data.sources.layout import root_of
from umdseg.errors import UserError
from umdseg.vocabulary import UNITS, Modality, Scan, Subject

_FILES: dict[Modality, tuple[str, str | None]] = {
    "ct": ("CT", None),
    "pet": ("PET", "FDG"),
    "mr": ("MR_T1", "T1"),
}


@dataclass
class StsOptions(RootOptions):
    """Options of the sarcoma patients.

    Attributes:
        root: folder that holds `nifti/STS_*` or `STS_*`, any subset of patients, or one patient's folder.
        folds: the data come without a split.
    """

    name: str = "sts"
    folds: int | None = 3


class StsSource(Source):
    """Finds the patients; those without CT stay, as patients without CT."""

    Options = StsOptions
    options: StsOptions

    def listing(self, seed: int) -> Listing:
        """As `Source.listing`.

        Raises:
            UserError: no root given, no patients in it, or an image without its mask.
        """
        del seed
        folders = patient_folders(root_of(self.options.root, "sts", "nifti/STS_* or STS_*"))
        subjects = tuple(Subject(f.name, _scans(f), "", "", "sts") for f in folders)
        return Listing(PairedDataset("sts", subjects, anatomy.ids("sts"), folders[0].parent))


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
