"""data=synthrad: SynthRAD2023 and 2025, CT and MR of the same radiotherapy patients, registered.

Source: Thummerer et al., Med Phys 2023, doi:10.1002/mp.16529, data doi:10.5281/zenodo.7260705 (brain,
pelvis; rigid, NIfTI); Thummerer et al. 2025, arXiv:2502.17609, data doi:10.5281/zenodo.14918089 (head and
neck, thorax, abdomen; deformable, MetaImage). Layout: `Task1/<region>/<id>/{mr,ct,mask}.<nii.gz|mha>`; an
id is task, region (B, P, HN, TH, AB), centre (one letter) and number, such as 1BA001 or 1HNA001. Task 2
(cone-beam CT) has no MR.

There are no organ labels: `data.labels=outline` gives the mask, the dilated outline of the body, and
`data.labels=FOLDER` label maps of your own named `<id>.nii.gz` (on the grid of CT and MR, which is one),
with `label_ids.json` or `structures.yaml`. MetaImage files are turned into NIfTI once, into the cache.

Not confirmed: MR sequences. Validation and test sets were published without CT at first; patients without
CT stay, as patients without CT.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from umdseg import anatomy
from umdseg.data.dataset import PairedDataset
from umdseg.data.sources.base import Listing, RootOptions, Source
from umdseg.data.sources.derived import Converted, target
from umdseg.data.sources.label_folder import label_folder
from umdseg.data.sources.layout import not_here, once, root_of
from umdseg.errors import UserError
from umdseg.vocabulary import UNITS, Modality, Scan, Subject

_HOLDS = "Task1/<region>/<id>/ct, mr and mask (.nii.gz or .mha)"
_ID = re.compile(r"1(?:B|P|HN|TH|AB)([A-Z])\d+")
_MODALITIES: tuple[Modality, ...] = ("ct", "mr")


@dataclass
class SynthradOptions(RootOptions):
    """Options of SynthRAD.

    Attributes:
        labels: outline, or a folder of label maps.
        folds: the paired data come without a split.
    """

    name: str = "synthrad"
    labels: str = "outline"
    folds: int | None = 5


class SynthradSource(Source):
    """Lists the patients of task 1, at any depth up to the region."""

    Options = SynthradOptions
    options: SynthradOptions
    generated = True

    def listing(self, seed: int) -> Listing:
        """As `Source.listing`."""
        del seed
        root = root_of(self.options.root, "synthrad", _HOLDS)
        folders = _folders(root)
        if not folders:
            raise not_here(root, _HOLDS, lambda place: bool(_folders(place)))
        labels, structures, notes = dict[str, Path](), anatomy.ids("synthrad"), tuple[str, ...]()
        if self.options.labels != "outline":
            labels, structures = label_folder(self.options.labels, "data.labels")
            found, folders = len(folders), [folder for folder in folders if folder.name in labels]
            if len(folders) < found:
                notes = (f"{found - len(folders)} of {found} patients have no label map and are left out",)
        if not folders:
            what = f"none of the {len(labels)} label maps is named like a patient"
            raise UserError(what, where=f"data.labels={self.options.labels}", expected="1BA001.nii.gz")
        seen: dict[str, Path] = {}
        subjects, derived = [], list[Converted]()
        for folder in folders:
            once(seen, folder.name, folder)
            subjects.append(self._subject(folder, labels, derived))
        return Listing(PairedDataset("synthrad", tuple(subjects), structures, root), tuple(derived), notes)

    def _subject(self, folder: Path, labels: Mapping[str, Path], derived: list[Converted]) -> Subject:
        label = labels.get(folder.name) or self._file(folder, "mask", derived)
        files = {m: self._file(folder, m, derived) for m in _MODALITIES}
        if label is None or files["mr"] is None:
            what = f"patient {folder.name} has no {'mask' if label is None else 'mr'}"
            raise UserError(what, where=folder, expected="mr, mask and, where published, ct")
        scans = {m: Scan(path, m, UNITS[m], label) for m, path in files.items() if path}
        match = _ID.fullmatch(folder.name)
        assert match is not None
        return Subject(folder.name, scans, "", match[1], "synthrad")

    def _file(self, folder: Path, stem: str, derived: list[Converted]) -> Path | None:
        """A file of a patient as NIfTI: as it is, or to be made from MetaImage."""
        nifti, meta = folder / f"{stem}.nii.gz", folder / f"{stem}.mha"
        if nifti.is_file() or not meta.is_file():
            return nifti if nifti.is_file() else None
        made = target(self.options.cache_dir, "synthrad", f"{folder.name}_{stem}", [meta], "nifti")
        derived.append(Converted(made, folder.name, (meta,)))
        return made


def _folders(root: Path) -> list[Path]:
    """Folders of patients, however much of the path above them was given."""
    for pattern in ("*/[Tt]ask1/*/*", "[Tt]ask1/*/*", "*/*", "*"):
        found = [p for p in root.glob(pattern) if p.is_dir() and _ID.fullmatch(p.name)]
        if found:
            return sorted(found, key=lambda p: p.name)
    return []
