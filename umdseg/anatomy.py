"""ONE table of structures: canonical name <-> ids in datasets <-> class indices of models.

Canonical names are TotalSegmentator's where it has the structure, otherwise the same style
(lower case, underscores, side last; British `tumour`). The rows live in `anatomy.csv`. Sources of the ids:

- `umd13`: the 13 organs of whole-body PET/CT/MR studies, numbered 1..13 by this project
  (the publication that uses these organs gives no ids).
- `totalsegmentator`, `totalsegmentator_mr`: TotalSegmentator tasks `total` (117) and `total_mr` (50).
- `vista3d`: VISTA3D / NV-Segment-CT, 127 usable indices, 3 of them super-classes (see `groups`).
- `nv_segment_ctmr`: NV-Segment-CTMR, 345 indices, the undefined ones named `..._deprecated`.
- `sts`: tumour masks of the soft-tissue-sarcoma PET/CT/MR collection.
- `amos`: AMOS 2022, 15 organs; its 15th is the prostate in men and the uterus in women, one name here.
- `autopet`: lesion masks; `autopet_organ`, `dap_atlas`: organ labels made for autoPET, only the ids that
  could be confirmed (`umdseg.data.sources.autopet` says how).
- `enhance_pet`: ENHANCE.PET's structures, numbered by this project (the data count each group from 1).
- `synthrad`: SynthRAD's body outline.
- `totalsegmentator_v1`: the 104 classes of TotalSegmentator v1 (metadata.json of MONAI's bundle
  wholeBody_ct_segmentation).
- `btcv`: the 13 organs of BTCV (MONAI's swin_unetr_btcv_segmentation, metadata.json).
- `suprem`: SuPreM's first 25 classes (its utils.py), less 19, "intestine", which no source delimits.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from functools import cache
from importlib.resources import files

from umdseg.errors import UserError, nearest, unknown

UMD13: tuple[str, ...] = (
    "liver",
    "kidney_left",
    "kidney_right",
    "brain",
    "heart",
    "spleen",
    "aorta",
    "lung",
    "colon",
    "urinary_bladder",
    "pancreas",
    "esophagus",
    "stomach",
)
SCHEMES: tuple[str, ...] = (
    "umd13",
    "totalsegmentator",
    "totalsegmentator_mr",
    "vista3d",
    "nv_segment_ctmr",
    "sts",
    "amos",
    "autopet",
    "autopet_organ",
    "dap_atlas",
    "enhance_pet",
    "synthrad",
    "totalsegmentator_v1",
    "btcv",
    "suprem",
)

_SIDES = ("left", "right")
_LOBES = ("upper_lobe_left", "lower_lobe_left", "upper_lobe_right", "middle_lobe_right", "lower_lobe_right")
_SPINE = [f"{level}{n}" for level, last in (("L", 5), ("T", 12), ("C", 7)) for n in range(last, 0, -1)]
# VISTA3D's published sub-classes of `bone`; vertebrae_S1 is not among them
_BONES = (
    *(f"vertebrae_{v}" for v in _SPINE),
    *(f"rib_{side}_{n}" for side in _SIDES for n in range(1, 13)),
    *(f"{bone}_{side}" for bone in ("humerus", "scapula", "clavicula", "femur", "hip") for side in _SIDES),
    *("sacrum", "costal_cartilages", "skull", "sternum"),
)
# whole -> ways to put it together; a scheme uses the first way it knows completely
_PARTS: dict[str, list[tuple[str, ...]]] = {
    "kidney": [("kidney_left", "kidney_right")],
    "lung": [tuple(f"lung_{lobe}" for lobe in _LOBES), ("lung_left", "lung_right")],
    "bone": [_BONES],
}


def structures() -> list[str]:
    """All canonical names, without those a model declares undefined."""
    return [row["name"] for row in _rows() if not row["note"]]


def canonical(name: str) -> str:
    """The canonical name of a structure.

    Case, separators, word order ("left kidney") and tumor/tumour do not matter; official NV-Segment
    spellings and a few synonyms ("bladder") are known.

    Raises:
        UserError: no structure of that name (with the nearest one).
    """
    found = find(name)
    if found is None:
        # compared word by word in the same order, so "left kidny" is near "kidney_left"
        spellings = {" ".join(_key(known)): known for known in structures()}
        hit = nearest(" ".join(_key(name)), spellings)
        raise UserError(
            f"unknown structure '{name}'",
            expected=f"one of {len(spellings)} names in the table, such as {', '.join(UMD13[:3])}",
            nearest=spellings[hit] if hit else None,
        )
    return found


def find(name: str) -> str | None:
    """Like `canonical`, but None where there is no structure of that name."""
    return _names().get(_key(name))


def ids(scheme: str) -> dict[str, int]:
    """Canonical name -> id, for every entry of a scheme, super-classes and deprecated entries included.

    Raises:
        UserError: no such scheme (with the nearest one).
    """
    if scheme not in SCHEMES:
        raise unknown("label scheme", scheme, SCHEMES)
    return {row["name"]: int(row[scheme]) for row in _rows() if row[scheme]}


def name_of(scheme: str, id: int) -> str:
    """The canonical name behind an id.

    Raises:
        UserError: the scheme does not exist or does not use the id.
    """
    table = {value: name for name, value in ids(scheme).items()}
    if id not in table:
        raise UserError(
            f"label scheme '{scheme}' has no id {id}",
            expected=f"one of its {len(table)} ids between {min(table)} and {max(table)}",
        )
    return table[id]


def groups(scheme: str) -> dict[str, tuple[str, ...]]:
    """Whole -> the parts whose union it is, where the scheme has all the parts.

    VISTA3D's super-classes (kidney 2, lung 20, bone 21) are here: a model is asked for the parts,
    never for the super-class index itself.
    """
    return _put_together(ids(scheme))


def wholes(known: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Like `groups`, for any structures: whole -> parts, where the parts are known and the whole is not."""
    return {whole: parts for whole, parts in _put_together(known).items() if whole not in known}


def direct(scheme: str) -> dict[str, int]:
    """Like `ids`, but only what may be asked for or labelled directly: no groups, nothing deprecated."""
    usable = set(structures()) - groups(scheme).keys()
    return {name: id for name, id in ids(scheme).items() if name in usable}


def _put_together(known: Collection[str]) -> dict[str, tuple[str, ...]]:
    ways = {whole: [way for way in ways if set(known) >= set(way)] for whole, ways in _PARTS.items()}
    return {whole: fitting[0] for whole, fitting in ways.items() if fitting}


@cache
def _rows() -> tuple[dict[str, str], ...]:
    text = files("umdseg").joinpath("anatomy.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@cache
def _names() -> dict[tuple[str, ...], str]:
    return {
        _key(alias): row["name"]
        for row in _rows()
        for alias in (row["name"], *filter(None, row["aliases"].split("|")))
    }


def _key(name: str) -> tuple[str, ...]:
    # sorted words, so "left kidney", "kidney_left" and "Left-Kidney" are one
    words = re.findall(r"[a-z0-9]+", str(name).lower())
    return tuple(sorted("tumour" if word == "tumor" else word for word in words))
