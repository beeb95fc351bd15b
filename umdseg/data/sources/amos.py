"""data=amos: AMOS 2022, abdominal CT and MR of different people, 15 organs.

Source: Ji et al., NeurIPS 2022, arXiv:2206.08023; data doi:10.5281/zenodo.7262581. Layout and ids from the
`readme.md` and `dataset.json` of the archive: `imagesTr|Va|Ts/amos_XXXX.nii.gz`, labels of the same name in
`labelsTr|Va|Ts`. Ids up to 500 are the 500 CT, those above the 100 MR (the readme says "less than 500";
with 500 CT numbered from 1 that is meant to include 500).

Labels of Ts are withheld from the public archive; without them its images are left out, and Va, on which
publications report, is the test split. With `labelsTs` Va is the validation split.

Not confirmed: MR sequences; whether one person is among both the CT and the MR.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from umdseg import anatomy
from umdseg.data.dataset import PairedDataset
from umdseg.data.sources.base import Listing, RootOptions, Source
from umdseg.data.sources.layout import matched, niftis, not_here, once, root_of, some
from umdseg.vocabulary import UNITS, Modality, Scan, Subject

_HOLDS = "imagesTr, labelsTr, imagesVa and labelsVa"
_LAST_CT = 500


@dataclass
class AmosOptions(RootOptions):
    """Options of AMOS; CT and MR are of different people."""

    name: str = "amos"


class AmosSource(Source):
    """Lists the three published parts."""

    Options = AmosOptions
    options: AmosOptions

    def listing(self, seed: int) -> Listing:
        """As `Source.listing`."""
        del seed
        root = root_of(self.options.root, "amos", _HOLDS)
        if not _fits(root):
            raise not_here(root, _HOLDS, _fits)
        has_test = (root / "labelsTs").is_dir()
        parts = {"Tr": "train", "Va": "val" if has_test else "test"} | ({"Ts": "test"} if has_test else {})
        seen: dict[str, Path] = {}
        subjects = [s for part, split in parts.items() for s in _part(root, part, split, seen)]
        hidden = len(niftis(root / "imagesTs")) if not has_test else 0
        notes = (f"{hidden} images of imagesTs have no public label and are left out",) if hidden else ()
        dataset = PairedDataset("amos", tuple(subjects), anatomy.ids("amos"), root)
        return Listing(dataset, notes=notes)


def _fits(root: Path) -> bool:
    return (root / "imagesTr").is_dir() and any((root / "imagesTr").glob("amos_*.nii*"))


def _part(root: Path, part: str, split: str, seen: dict[str, Path]) -> list[Subject]:
    folder = root / f"images{part}"
    images, labels = niftis(folder), niftis(root / f"labels{part}")
    numbers = matched(images, r"amos_(\d+)", folder, "amos_0001.nii.gz")
    for found, missing, what in (
        (images, set(images) - set(labels), f"images have no label in labels{part}"),
        (labels, set(labels) - set(images), f"labels have no image in images{part}"),
    ):
        if missing:
            raise some(missing, len(found), what, root, "one label of the same name for every image")
    subjects = []
    for name, match in numbers.items():
        once(seen, name, folder)
        modality: Modality = "ct" if int(match[1]) <= _LAST_CT else "mr"
        scan = Scan(images[name], modality, UNITS[modality], labels[name])
        subjects.append(Subject(name, {modality: scan}, split, "", "amos"))
    return subjects
