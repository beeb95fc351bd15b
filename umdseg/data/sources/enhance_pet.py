"""data=enhance_pet: ENHANCE.PET 1.6k, whole-body FDG-PET/CT of 1,597 studies, 130 CT-derived structures.

Source: Ferrara et al., doi:10.1038/s41597-026-07218-y (preprint PMC12340901); layout from the data card of
the authors (github.com/ENHANCE-PET/MOOSE, DATA_CARD.md): `imaging-data/images/{CT,PT}/0001.nii.gz` and
`imaging-data/ground-truth/<group>/0001.nii.gz` with ids that start at 1 in each of seven groups. Ids of
Organs, Cardiac and Muscles are the card's; those of Ribs, Vertebrae and Peripheral-Bones are taken from a
public loader of the data (constantinpape/torch-em). Labels lie on the CT's grid and are shared by the PET.
The groups become one label map with ids of this project (`enhance_pet` in `anatomy.csv`), made once into
the cache. The group Body-Composition (fat and muscle around L3 only, across the other structures) is not
used.

1,014 of the studies are those of autoPET: do not train on the one and test on the other.

Not confirmed: that PT is in SUV (`umdseg check --deep` tells counts from SUV); which studies are of one
patient, so every study counts as a patient; sites stand in `CT-details.xlsx`, which is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from umdseg import anatomy
from umdseg.data.dataset import PairedDataset
from umdseg.data.options import refuse_repeats
from umdseg.data.sources.base import Listing, RootOptions, Source
from umdseg.data.sources.derived import Combined, target
from umdseg.data.sources.layout import matched, niftis, not_here, root_of, some
from umdseg.errors import unknown
from umdseg.vocabulary import UNITS, Scan, Subject

_HOLDS = "imaging-data/images/CT, imaging-data/images/PT and imaging-data/ground-truth"
_SIDES = ("left", "right")


def _pairs(*names: str) -> list[str]:
    return [f"{name}_{side}" for name in names for side in _SIDES]


# canonical names in the order of the ids 1, 2, ... of each group
GROUPS: dict[str, tuple[str, ...]] = {
    "Organs": (
        *("adrenal_gland_left", "adrenal_gland_right", "urinary_bladder", "brain", "gallbladder"),
        *("kidney_left", "kidney_right", "liver", "lung_lower_lobe_left", "lung_lower_lobe_right"),
        *("lung_middle_lobe_right", "lung_upper_lobe_left", "lung_upper_lobe_right", "pancreas"),
        *("spleen", "stomach", "thyroid_lobe_left", "thyroid_lobe_right"),
    ),
    "Cardiac": (
        *("heart_myocardium", "heart_atrium_left", "heart_atrium_right", "heart_ventricle_left"),
        *("heart_ventricle_right", "aorta", "iliac_artery_left", "iliac_artery_right"),
        *("iliac_vena_left", "iliac_vena_right", "inferior_vena_cava"),
        *("portal_vein_and_splenic_vein", "pulmonary_artery"),
    ),
    "Muscles": tuple(
        _pairs("autochthon", "gluteus_maximus", "gluteus_medius", "gluteus_minimus", "iliopsoas")
    ),
    "Ribs": (*(f"rib_{side}_{n}" for side in _SIDES for n in range(1, 14)), "sternum"),
    "Vertebrae": (
        *(f"vertebrae_{v}{n}" for v, last in (("C", 7), ("T", 12), ("L", 6)) for n in range(1, last + 1)),
        *("hip_left", "hip_right", "sacrum"),
    ),
    "Peripheral-Bones": (
        *_pairs("carpal", "clavicula", "femur", "fibula", "fingers", "humerus", "metacarpal", "metatarsal"),
        *_pairs("patella", "radius", "scapula"),
        "skull",
        *_pairs("tarsal", "tibia", "toes", "ulna"),
    ),
}


@dataclass
class EnhancePetOptions(RootOptions):
    """Options of ENHANCE.PET.

    Attributes:
        groups: groups of structures used; fewer are combined faster.
        folds: the data come without a split.
    """

    name: str = "enhance_pet"
    groups: list[str] = field(default_factory=lambda: list(GROUPS))
    folds: int | None = 5

    def validate(self) -> None:
        """As `DataOptions.validate`; also refuses unknown groups."""
        super().validate()
        refuse_repeats("data.groups", self.groups)
        for group in self.groups:
            if group not in GROUPS:
                raise unknown("group of structures", group, GROUPS, where="data.groups")


class EnhancePetSource(Source):
    """Lists the studies and combines their groups of labels."""

    Options = EnhancePetOptions
    options: EnhancePetOptions
    generated = True

    def listing(self, seed: int) -> Listing:
        """As `Source.listing`."""
        del seed
        root = root_of(self.options.root, "enhance_pet", _HOLDS)
        if not _fits(root):
            raise not_here(root, _HOLDS, _fits)
        images = root / "imaging-data" / "images"
        ct, pet = niftis(images / "CT"), niftis(images / "PT")
        matched([*ct, *pet], r"\d{4}", images, "0001.nii.gz")
        labels = {name: niftis(root / "imaging-data" / "ground-truth" / name) for name in self.options.groups}
        for name, held in {"images/PT": pet, **{f"ground-truth/{k}": v for k, v in labels.items()}}.items():
            missing = set(ct) ^ set(held)
            if missing:
                what = f"studies are not in both images/CT and {name}"
                raise some(missing, len(ct), what, root, "one file for every study in each folder")
        derived = [self._combined(name, labels) for name in ct]
        subjects = tuple(_subject(one, ct[one.subject], pet[one.subject]) for one in derived)
        chosen = {name for group in self.options.groups for name in GROUPS[group]}
        structures = {name: id for name, id in anatomy.ids("enhance_pet").items() if name in chosen}
        return Listing(PairedDataset("enhance_pet", subjects, structures, root), tuple(derived))

    def _combined(self, study: str, labels: Mapping[str, Mapping[str, Path]]) -> Combined:
        ids = anatomy.ids("enhance_pet")
        tables = tuple({i: ids[name] for i, name in enumerate(GROUPS[group], 1)} for group in labels)
        sources = tuple(files[study] for files in labels.values())
        path = target(self.options.cache_dir, "enhance_pet", study, sources, list(tables))
        return Combined(path, study, sources, tables)


def _fits(root: Path) -> bool:
    return (root / "imaging-data" / "images" / "CT").is_dir()


def _subject(made: Combined, ct: Path, pet: Path) -> Subject:
    scans = {
        "ct": Scan(ct, "ct", UNITS["ct"], made.target),
        "pet": Scan(pet, "pet", UNITS["pet"], made.target, "FDG"),
    }
    return Subject(made.subject, scans, "", "", "enhance_pet")  # type: ignore[arg-type]
