"""data=autopet: autoPET, whole-body PET/CT with lesions (FDG and PSMA), and organ labels made for it.

Images: Gatidis et al., Sci Data 2022, doi:10.1038/s41597-022-01718-3 (FDG, Tübingen; TCIA
doi:10.7937/gkr0-xv29) and Jeblick et al., TCIA 2024 (PSMA, LMU Munich), merged at
doi:10.57754/FDAT.6gjsg-zcg93. Two layouts are read:

- nnU-Net (autoPET III and later): `imagesTr/<case>_0000.nii.gz` = CT resampled to the PET grid,
  `_0001` = PET in SUV, `labelsTr/<case>.nii.gz`, `splits_final.json` (five folds). A case is
  `<fdg|psma>_<patient>_<study>`.
- per study (TCIA/FDAT NIfTI): `PETCT_<patient>/<study>/{CTres,CT,SUV,SEG}.nii.gz`; FDG.

`data.labels`:

- `lesion`: the data set's own.
- `autopet_organ`: AutoPET-Organ of SegAnyPET (arXiv:2502.14351), 100 FDG studies, in
  `AutoPET-OrganlabelsTr/PETCT_<patient>_<study>_.nii.gz`. The publisher names organs but no ids; the ids
  are those a public loader measured (constantinpape/torch-em): 11 organs, the right middle lobe as 11 in
  some studies and 12 in the others, which become one here; no prostate. Not confirmed by the publisher.
- `dap_atlas`: DAP Atlas (Jaus et al., arXiv:2307.13375), 533 FDG CT, `AutoPET_<patient>_<last five digits
  of the study UID>.nii.gz`; ids from `label_name.csv` of the publication's repository. Only ids that file
  and NVIDIA's published mapping read alike are used; the others become background. Not used: 1 (left to
  annotate), 11 (absent from the publication's table), 21, 24, 125 (read differently), 67 to 90 (the file
  counts ribs from one end, NVIDIA from the other), 105 and 107 (unclear parts of the heart) and 132 to
  144 (not in the file). Masks are expected on the grid of the original CT, so the per-study layout is
  read with `CT.nii.gz`. Not confirmed: that grid.
- a folder: label maps named like the cases, with `label_ids.json` or `structures.yaml`.

Studies without an organ label are left out. Splits are by patient, of whom many have several studies.

Not confirmed: that the folds of `splits_final.json` are by patient (one that is not is refused).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from umdseg import anatomy
from umdseg.data.dataset import PairedDataset
from umdseg.data.sources.autopet_studies import HOLDS, fits, studies
from umdseg.data.sources.base import Listing, RootOptions, Source
from umdseg.data.sources.derived import Combined, target
from umdseg.data.sources.label_folder import label_files, label_folder
from umdseg.data.sources.layout import normal, not_here, root_of, some
from umdseg.errors import UserError
from umdseg.vocabulary import Subject

# where the two published sets of organ labels unpack to, beside the images
_FOLDERS = {"autopet_organ": "AutoPET-OrganlabelsTr", "dap_atlas": "ATLAS_DATASET"}
# ids that stand for another, or for nothing
_ALSO: dict[str, dict[int, int]] = {
    "autopet_organ": {12: 11},
    "dap_atlas": dict.fromkeys([1, 11, 21, 24, *range(67, 91), 105, 107, 125, *range(132, 145)], 0),
}


@dataclass
class AutopetOptions(RootOptions):
    """Options of autoPET.

    Attributes:
        labels: lesion, autopet_organ, dap_atlas, or a folder of label maps.
        labels_dir: where the organ labels lie; None means the folder they unpack to, in the root.
    """

    published_folds: ClassVar[bool] = True

    name: str = "autopet"
    labels: str = "lesion"
    labels_dir: str | None = None

    def validate(self) -> None:
        """As `DataOptions.validate`; also refuses `labels_dir` where it has no use."""
        super().validate()
        if self.labels_dir and self.labels not in _FOLDERS:
            what = f"labels_dir has no use with data.labels={self.labels}"
            raise UserError(what, where="data.labels_dir", expected=f"data.labels={' or '.join(_FOLDERS)}")


class AutopetSource(Source):
    """Lists the studies of either layout and attaches the labels asked for."""

    Options = AutopetOptions
    options: AutopetOptions
    generated = True

    def listing(self, seed: int) -> Listing:
        """As `Source.listing`."""
        del seed
        root, labels = root_of(self.options.root, "autopet", HOLDS), self.options.labels
        if not fits(root):
            raise not_here(root, HOLDS, fits)
        found = studies(root, "CT" if labels == "dap_atlas" else "CTres")
        if self.options.folds is None:
            found = _published(found, root / "splits_final.json", self.options.fold)
        if labels == "lesion":
            return Listing(PairedDataset("autopet", tuple(found), anatomy.ids("autopet"), root))
        derived: list[Combined] = []
        if labels in _FOLDERS:
            files = label_files(self.options.labels_dir or root / _FOLDERS[labels], "data.labels_dir")
            structures = anatomy.ids(labels)
        else:
            files, structures = label_folder(labels, "data.labels")
        given = _pair(found, files, labels)
        if labels in _FOLDERS:
            table = {id: id for id in structures.values()} | _ALSO[labels]
            derived = [self._derived(name, path, table) for name, path in given.items()]
            given = {one.subject: one.target for one in derived}
        subjects = tuple(_relabelled(s, given[s.id]) for s in found if s.id in given)
        left = len(found) - len(subjects)
        told = f"{left} of {len(found)} studies have no label in {labels} and are left out"
        notes = (told,) if left else ()
        return Listing(PairedDataset("autopet", subjects, structures, root), tuple(derived), notes)

    def _derived(self, study: str, path: Path, table: Mapping[int, int]) -> Combined:
        made = target(self.options.cache_dir, "autopet", normal(study), [path], table)
        return Combined(made, study, (path,), (table,))


def _relabelled(subject: Subject, label: Path) -> Subject:
    """The label lies on the grid of one scan and is shared by the other."""
    return replace(subject, scans={m: replace(scan, label=label) for m, scan in subject.scans.items()})


def _pair(found: Sequence[Subject], files: Mapping[str, Path], labels: str) -> dict[str, Path]:
    """Study -> label file, by the names the label sets use."""
    keys = {_key(name): path for name, path in files.items()}
    if len(keys) < len(files):
        what = f"{len(files) - len(keys)} label maps have the name of another but for blanks"
        raise UserError(what, where=labels, expected="one label map a study")
    given: dict[str, Path] = {}
    for subject in found:
        name = _key(subject.id)
        # patient and the last five digits of the study, as DAP Atlas names its files
        short = f"{name.split('_')[0]}_{name[-5:]}"
        hits = {keys[key] for key in (name, short) if key in keys}
        if hits:
            given[subject.id] = hits.pop()
    if not given:
        expected = f"names such as {found[0].id}; there are {sorted(files)[0]}, ..."
        raise UserError(f"none of the {len(files)} label maps fits a study", where=labels, expected=expected)
    if len(set(given.values())) < len(given):
        twice = [name for name, path in given.items() if list(given.values()).count(path) > 1]
        raise some(twice, len(given), "studies share a label map", labels, "one label map a study")
    return given


def _key(name: str) -> str:
    """Patient and study, however the layout spells them."""
    for prefix in ("fdg_", "psma_", "petct_", "autopet_"):
        name = normal(name).removeprefix(prefix)
    return name


def _published(found: Sequence[Subject], path: Path, fold: int) -> list[Subject]:
    """The subjects in the split of the data set's own folds; without that file, in none."""
    if not path.is_file():
        if fold:
            what, expected = "the data set's own folds are missing", "data.folds=5, which deals new ones"
            raise UserError(what, where=path, expected=expected)
        return list(found)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        folds = [(set(one["train"]), set(one["val"])) for one in content]
    except (ValueError, KeyError, TypeError) as error:
        expected = "nnU-Net's list of folds with train and val"
        raise UserError(f"not readable: {error!r}", where=path, expected=expected) from error
    if not 0 <= fold < len(folds):
        expected = f"0 to {len(folds) - 1}, the data set's own folds"
        raise UserError(f"there is no fold {fold}", where="data.fold", expected=expected)
    train, test = folds[fold]
    # a published fold calls the part it tests "val"
    split = {**dict.fromkeys(train, "train"), **dict.fromkeys(test, "test")}
    return [replace(s, split=split.get(s.id, "")) for s in found]
