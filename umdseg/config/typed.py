"""What the command line names: tables and their entries, and what would change nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, get_origin, get_type_hints

from umdseg.config.compose import composed
from umdseg.config.schema import COMPONENTS, FIXED, Settings, options_of
from umdseg.config.values import Problem
from umdseg.errors import UserError


def with_tables(cls: type, section: str, given: Any, tables: Mapping[str, dict[str, Any]]) -> Any:
    """A table given on the command line replaces the one in the files; Hydra would merge them."""
    told = {key: value for key in _tables(cls) if (value := tables.get(f"{section}.{key}")) is not None}
    return {**given, **told} if isinstance(given, Mapping) else given


def complete_tables(door: str, plain: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """One entry of a table given on the command line changes that entry; the others keep their defaults.

    Hydra knows only the tables that stand in a file, and would make a new one with that entry alone. Must
    run inside `hydra_session`.

    Args:
        door: `train` or `evaluate`.
        plain: the configuration as Hydra composed it; tables are completed in place.
        overrides: what it was composed of.
    """
    for section in (*COMPONENTS, *FIXED):
        given = plain.get(section)
        cls = FIXED.get(section) or _options(section, given)
        if cls is None or not isinstance(given, dict):
            continue
        for key, default in _tables(cls).items():
            entries = [text for text in overrides if text.startswith(f"++{section}.{key}.")]
            if not entries:
                continue
            there, _, problems = composed(door, [text for text in overrides if text not in entries])
            if not problems and there[section].get(key) is None:
                given[key] = {**default, **given[key]}


def without_a_fusion(settings: Settings, explicit: Collection[str]) -> list[Problem]:
    """Options of a fusion that were typed where there is none; a sweep over fusions drops them there."""
    if settings.fusion.name != "none" or settings.fusion.path or settings.adapter.path:
        return []
    keys = sorted(key for key in set(explicit) - {"fusion.name", "fusion.path"} if key.startswith("fusion."))
    return [
        Problem(key, "an option of a fusion, and there is none", "a fusion: fusion=gated") for key in keys
    ]


def fits_nothing(settings: Settings) -> Iterator[Problem]:
    """What evaluate.py cannot do, and would be taken to have done."""
    if settings.run.ckpt_path:
        given = f"'{settings.run.ckpt_path}', which evaluate.py does not read"
        expected = "adapter.path=RUN/adapter, which a finished run holds; train.py goes on from a checkpoint"
        yield Problem("ckpt_path", given, expected)
    if settings.run.overfit:
        given, expected = "true, but evaluate.py fits nothing", "data.split=train scores who is trained on"
        yield Problem("overfit", given, expected)


def unread(settings: Settings, explicit: Collection[str]) -> Iterator[str]:
    """Lines about what was typed and does not matter to evaluate.py."""
    fitting = sorted(key for key in explicit if key.startswith("fit."))
    if fitting:
        yield f"not used by evaluate.py, which fits nothing: {' '.join(fitting)}"
    if str(settings.trainer.devices) not in ("1", "auto"):
        yield f"trainer.devices={settings.trainer.devices}: evaluate.py works on one device"


def _tables(cls: type) -> dict[str, dict[str, Any]]:
    """Options of a section that are tables, and their defaults."""
    hints = get_type_hints(cls)
    found = {spec.name: spec.default_factory for spec in fields(cls) if get_origin(hints[spec.name]) is dict}
    return {key: {} if made is MISSING else made() for key, made in found.items()}


def _options(section: str, given: Any) -> type | None:
    name = given.get("name") if isinstance(given, Mapping) else None
    try:
        return options_of(section, name) if isinstance(name, str) else None
    except UserError:
        # there is no such component, which the check says
        return None
