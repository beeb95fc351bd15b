"""data=totalsegmentator: TotalSegmentator's CT (117 structures) or MR (50 structures) training data.

Source: Wasserthal et al., Radiology: AI 2023, doi:10.1148/ryai.230024, data doi:10.5281/zenodo.6802613; MR:
Akinci D'Antonoli et al., Radiology 2025, doi:10.1148/radiol.241613, data doi:10.5281/zenodo.11367004.
Layout: `s0000/ct.nii.gz` (or `mri.nii.gz`), `s0000/segmentations/<structure>.nii.gz` (one binary mask a
structure), and `meta.csv` separated by semicolons with `image_id`, `split` and `institute`. Ids of the
combined label maps are those of the tasks `total` and `total_mr` (version 2 and later); version 1 (104
structures, other names) is refused.

One combined label map a subject is made once into the cache. With `data.structures` only those masks are
read, which is much faster than all 117.

Not confirmed: the name `mri.nii.gz` (from the description of third parties), the columns of the MR
`meta.csv`, and MR sequences.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from umdseg import anatomy
from umdseg.data.dataset import PairedDataset
from umdseg.data.sources.base import Listing, RootOptions, Source
from umdseg.data.sources.derived import Combined, target
from umdseg.data.sources.layout import niftis, not_here, only, root_of, some
from umdseg.errors import UserError, nearest
from umdseg.progress import track
from umdseg.vocabulary import UNITS, Modality, Scan, Subject

_IMAGES: dict[str, tuple[Modality, str]] = {
    "ct": ("ct", "totalsegmentator"),
    "mri": ("mr", "totalsegmentator_mr"),
}
_HOLDS = "s0000/ct.nii.gz (or mri.nii.gz), s0000/segmentations/*.nii.gz, ..., and meta.csv"


@dataclass
class TotalSegmentatorOptions(RootOptions):
    """Options of TotalSegmentator's data; the folder holds either the CT or the MR data set."""

    name: str = "totalsegmentator"


class TotalSegmentatorSource(Source):
    """Lists the subjects and combines their masks."""

    Options = TotalSegmentatorOptions
    options: TotalSegmentatorOptions
    generated = True

    def listing(self, seed: int) -> Listing:
        """As `Source.listing`."""
        del seed
        root = root_of(self.options.root, "totalsegmentator", _HOLDS)
        if not _fits(root):
            raise not_here(root, _HOLDS, _fits)
        folders = sorted(p for p in root.glob("s[0-9]*") if p.is_dir())
        image = _one_kind(root, folders)
        modality, scheme = _IMAGES[image]
        asked = PairedDataset("totalsegmentator", (), anatomy.ids(scheme)).select(self.options.structures)
        structures = only(anatomy.ids(scheme), asked)
        meta = _meta(root / "meta.csv", [folder.name for folder in folders])
        subjects, derived = [], []
        for folder in track(folders, "list masks", "subject"):
            made = self._combined(folder, structures, scheme)
            scan = Scan(niftis(folder)[image], modality, UNITS[modality], made.target)
            split, site = meta[folder.name]
            subjects.append(Subject(folder.name, {modality: scan}, split, site, "totalsegmentator"))
            derived.append(made)
        return Listing(PairedDataset("totalsegmentator", tuple(subjects), structures, root), tuple(derived))

    def _combined(self, folder: Path, structures: Mapping[str, int], scheme: str) -> Combined:
        masks = niftis(folder / "segmentations")
        odd = sorted(set(masks) - anatomy.ids(scheme).keys())
        if odd:
            raise UserError(
                f"subject {folder.name} has masks of {len(odd)} unknown structures, such as {odd[0]}",
                where=folder / "segmentations",
                expected="names of version 2 or later (version 1 named and cut structures otherwise)",
                nearest=nearest(odd[0], anatomy.ids(scheme)),
            )
        missing = set(structures) - set(masks)
        if missing:
            expected = "a mask for every structure, an empty one where the scan does not show it; "
            expected += "or data.structures=[...] with those that are there"
            what = f"masks of subject {folder.name} are missing"
            raise some(missing, len(structures), what, folder / "segmentations", expected)
        sources = tuple(masks[name] for name in structures)
        path = target(self.options.cache_dir, "totalsegmentator", folder.name, sources, dict(structures))
        return Combined(path, folder.name, sources, tuple({1: id} for id in structures.values()))


def _fits(root: Path) -> bool:
    return any(p for p in root.glob("s[0-9]*/segmentations") if p.is_dir())


def _one_kind(root: Path, folders: list[Path]) -> str:
    """`ct` or `mri`, whichever every subject has."""
    kinds = {folder.name: [name for name in _IMAGES if name in niftis(folder)] for folder in folders}
    bare = [name for name, found in kinds.items() if not found]
    if bare:
        raise some(bare, len(folders), "subjects have no image", root, "ct.nii.gz or mri.nii.gz in each")
    found = {name for names in kinds.values() for name in names}
    if len(found) > 1:
        what = "the folder holds both the CT and the MR data set, whose ids differ"
        raise UserError(what, where=f"data.root={root}", expected="one of them, in a folder of its own")
    return found.pop()


def _meta(path: Path, names: list[str]) -> dict[str, tuple[str, str]]:
    """Subject -> published split and institute."""
    if not path.is_file():
        expected = "meta.csv of the archive, beside the subjects (image_id;...;split)"
        raise UserError("the list of subjects and splits is missing", where=path, expected=expected)
    with open(path, encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter=";"))
    if not rows or not {"image_id", "split"} <= rows[0].keys():
        columns = ", ".join(rows[0]) if rows else "no row"
        expected = "columns image_id and split, separated by semicolons"
        raise UserError(f"unexpected columns: {columns}", where=path, expected=expected)
    known = {row["image_id"]: (row["split"].strip().lower(), row.get("institute") or "") for row in rows}
    unlisted = [name for name in names if name not in known]
    if unlisted:
        raise some(unlisted, len(names), "subjects are not in the list", path, "a row for every subject")
    wrong = {split for split, _ in known.values()} - {"train", "val", "test"}
    if wrong:
        what = f"unknown split '{sorted(wrong)[0]}'"
        raise UserError(what, where=path, expected="train, val or test")
    return known
