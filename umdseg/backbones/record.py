"""What an adapter or a fusion depends on beyond the weights, as a record to keep beside it.

The record is plain data that people can read:

    {"orientation": "RAS", "spacing": [1.5, 1.5, 1.5], "window": [128, 128, 128],
     "intensity": {"ct": {"kind": "window", "low": -160.0, "high": 240.0, ...}, ...}, "crop": null,
     "model": {"channels": "neighbours", ...}, "defaults": {"propagate": "box", ...}}

`model` are the model's options that change the input or the network; `defaults` its registered name, and
options that may be others when it is used (windows looked at, mirroring). Both go by the names of its options
dataclass.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from umdseg.backbones.base import Backbone
from umdseg.errors import UserError

# without these a record is one of an earlier version, which knew spacing and window at most
_COMPLETE = ("orientation", "intensity")
_told: set[str] = set()


def record_of(backbone: Backbone) -> dict[str, Any]:
    """The record of a model as it is now; without `model` and `defaults` where it was built directly."""
    card, options = backbone.card, backbone.built_with
    found: dict[str, Any] = {
        "orientation": card.orientation,
        "spacing": list(card.spacing or ()),
        "window": list(card.window),
        "intensity": {modality: asdict(scale) for modality, scale in card.intensity.items()},
        "crop": None if card.crop is None else asdict(card.crop),
    }
    if options is not None:
        found |= {"model": options.binding(), "defaults": options.defaults()}
    plain: dict[str, Any] = _plain(found)
    return plain


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(field, value then, value now) of whatever differs; fields that `then` does not know count for nothing.

    Args:
        then: a kept record, perhaps one of an earlier version.
        now: another record.
    """
    # a model made without options says nothing about them
    kept = {key: then[key] for key in then if key != "defaults" and (key != "model" or "model" in now)}
    return list(_unlike(kept, now, ""))


def check_record(then: Mapping[str, Any], backbone: Backbone, what: str, where: Path) -> None:
    """Refuse a model that works otherwise than the one that something was trained with.

    A record of an earlier version is compared as far as it goes, which is said once on standard error.

    Args:
        then: the kept record.
        backbone: the model it is to be used with.
        what: was trained: `adapter` or `fusion`.
        where: its folder.

    Raises:
        UserError: naming every field that differs, its value then and now.
    """
    found = differences(then, record_of(backbone))
    if found:
        name = backbone.card.name
        fields = " and ".join(field for field, _, _ in found)
        told = "; ".join(f"{field} {before}, not {after}" for field, before, after in found)
        raise UserError(
            f"the {what} was trained with another {fields} than {name} now works with",
            where=where,
            expected=told,
        )
    if any(key not in then for key in _COMPLETE) and str(where) not in _told:
        _told.add(str(where))
        compared = " and ".join(then) or "nothing"
        text = (
            f"note: the {what} in {where} was saved without a record of intensities, orientation and model "
            f"options; compared with the model now: {compared}"
        )
        print(text, file=sys.stderr, flush=True)


def _unlike(then: Mapping[str, Any], now: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any, Any]]:
    for key, before in then.items():
        after, where = now.get(key), f"{path}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _unlike(before, after, f"{where}.")
        elif before != after:
            yield where, before, after


def _plain(value: Any) -> Any:
    """As JSON gives it back: no tuples, no numbers of NumPy, and words for the numbers that JSON lacks."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if isfinite(value) else str(float(value))
    return str(value)
