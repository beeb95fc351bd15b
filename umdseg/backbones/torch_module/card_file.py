"""Cards from YAML, checked like the configuration: every field by its type, a typo with its nearest name."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from umdseg import anatomy
from umdseg.backbones.card import Card
from umdseg.errors import UserError, unknown
from umdseg.vocabulary import Modality

# of a module of the user's own, only the user knows
_DEFAULTS: dict[str, Any] = {
    "weights": {},
    "divisor": 1,
    "adapter_targets": "",
    "stem": "",
    "citation": "",
    "prompt_enters": "none",
}
_WEIGHTS: dict[str, Any] = {
    "source": None,
    "file": "",
    "sha256": None,
    "licence": "not stated",
    "commercial": None,
    "note": "not verified",
}
_TABLES = (dict, Mapping)
_WORDS = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class CardFile:
    """What a card file says.

    Attributes:
        card: the card.
        channels: modality of each input channel; empty: one channel, of any modality of the card.
    """

    card: Card
    channels: tuple[Modality, ...]


def read_card(path: Path | str) -> CardFile:
    """Read a card.

    Needed are `spacing` (null: the scan's own), `window`, `intensity` and `structures` (name -> output
    channel; with softmax output 0 is the background). `trained_on` defaults to the modalities of `intensity`.
    One field more than `Card` has: `channels`, for modules that take several modalities at once.

    Raises:
        UserError: missing or malformed file, unknown or missing field, a value of another type, an unknown
            structure; the first mistake, with the nearest valid name.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError("the model's card does not exist", where=path, expected="a YAML file")
    try:
        given: Any = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"not readable as YAML: {error}", where=path) from error
    if not isinstance(given, Mapping):
        raise UserError("the card is no table of fields", where=path, expected="field: value, line by line")
    channels = _value(tuple[Modality, ...], given.get("channels", []), f"{path}: channels")
    plain = {"name": path.stem, **_DEFAULTS, **{k: v for k, v in given.items() if k != "channels"}}
    plain.setdefault(
        "trained_on", list(given["intensity"]) if isinstance(given.get("intensity"), Mapping) else []
    )
    if isinstance(plain["weights"], Mapping):
        plain["weights"] = {**_WEIGHTS, **plain["weights"]}
    card: Card = _made(Card, plain, str(path), also=("channels",))
    _check(card, channels, path)
    return CardFile(card, channels)


def _made(cls: type, given: Any, where: str, also: tuple[str, ...] = ()) -> Any:
    """A dataclass from plain values."""
    if not isinstance(given, Mapping):
        names = ", ".join(spec.name for spec in fields(cls))
        raise UserError(f"{given!r} is no table", where=where, expected=f"a table with {names}")
    hints, known = get_type_hints(cls), {spec.name: spec for spec in fields(cls)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise unknown("field", str(key), [*known, *also], where=where)
        if key == "structures" and cls is Card:
            value = _canonical(value, f"{where}: structures")
        values[key] = _value(hints[key], value, f"{where}: {key}")
    for name, spec in known.items():
        if name not in values and spec.default is MISSING and spec.default_factory is MISSING:
            raise UserError(f"the field '{name}' is missing", where=where, expected=_described(hints[name]))
    return cls(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type says, or a clear refusal."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        arms = [arm for arm in args if (arm is type(None)) == (value is None)]
        return _value((arms or args)[0], value, where)
    if is_dataclass(hint):
        return _made(hint, value, where)  # type: ignore[arg-type]
    if origin is Literal and value not in args:
        raise unknown("choice", str(value), args, where=where)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) == len(value):
            return tuple(_value(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if origin in _TABLES and isinstance(value, Mapping):
        return {_value(args[0], k, where): _value(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and type(value) is int:
        value = float(value)
    if origin is not Literal and type(value) is not hint:
        raise UserError(f"{value!r} does not fit", where=where, expected=_described(hint))
    return value


def _described(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(arm) for arm in args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin is tuple:
        count = "a list of" if args[-1] is Ellipsis else f"a list of {len(args)}:"
        return f"{count} {_described(args[0])}"
    if is_dataclass(hint):
        return f"a table with {', '.join(spec.name for spec in fields(hint))}"
    if origin in _TABLES:
        return f"a table of {_described(args[0])} to {_described(args[1])}"
    return _WORDS.get(hint, str(hint))


def _canonical(given: Any, where: str) -> Any:
    """The same table with the names of the anatomy table."""
    if not isinstance(given, Mapping):
        return given
    found: dict[str, Any] = {}
    for name, channel in given.items():
        try:
            known = anatomy.canonical(name)
        except UserError as error:
            raise UserError(
                error.what, where=where, expected=error.expected, nearest=error.nearest
            ) from error
        if known in found:
            raise UserError(f"structure '{known}' is named twice", where=where)
        found[known] = channel
    return found


def _check(card: Card, channels: tuple[Modality, ...], path: Path) -> None:
    """What types alone do not tell."""
    if card.output == "mask":
        raise UserError(
            "finished masks cannot be blended", where=f"{path}: output", expected="sigmoid or softmax"
        )
    if card.prompts != ("auto",):
        raise UserError("a torch module is asked by class", where=f"{path}: prompts", expected="[auto]")
    if card.divisor < 1 or any(edge < 1 or edge % card.divisor for edge in card.window):
        expected = f"edges that are multiples of the divisor, {card.divisor}"
        raise UserError(f"a window of {card.window} voxels", where=f"{path}: window", expected=expected)
    first = 1 if card.output == "softmax" else 0
    numbers = list(card.structures.values())
    if not numbers or min(numbers) < first or len(set(numbers)) < len(numbers):
        raise UserError(
            f"channels {numbers} of {card.output} output",
            where=f"{path}: structures",
            expected=f"name: channel, every channel once, from {first} on",
        )
    if len(channels) > 1 and card.crop is not None:
        raise UserError("several channels are not cropped", where=f"{path}: crop", expected="null")
    for channel in channels:
        if channel not in card.intensity:
            raise UserError(f"no intensity for channel '{channel}'", where=f"{path}: intensity")
    for whole, parts in card.groups.items():
        for part in parts:
            if part not in card.structures:
                raise unknown("structure", part, card.structures, where=f"{path}: groups.{whole}")
