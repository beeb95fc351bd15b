"""The options of a model as they were when an adapter or a fusion was trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, get_type_hints

from umdseg.backbones.options import ModelOptions
from umdseg.config.build import coerce, described
from umdseg.config.schema import Settings, options_of
from umdseg.errors import UserError
from umdseg.registry import names, resolve
from umdseg.runs.job import say


def registered_name(record: Mapping[str, Any], base_model: str) -> str:
    """Under which name the model of a record is registered; a module of the user's own has a card of another.

    Args:
        record: see `umdseg.backbones.record`.
        base_model: name on the card.
    """
    told = record.get("defaults", {}).get("name")
    return str(told or (base_model if base_model in names("model") else "torch_module"))


def restored(settings: Settings, name: str, record: Mapping[str, Any]) -> ModelOptions:
    """Options of a model with those of a record in place of all that the command line does not name.

    What it names stays; whether that fits is checked when adapter or fusion are loaded. Options that say
    where files lie are in no record and stay, too. Options that change are told, once, on standard error.

    Args:
        settings: their model section.
        name: registered name of the model.
        record: see `umdseg.backbones.record`; an earlier version's holds the window at most.

    Raises:
        UserError: a value in the record that the option cannot have.
    """
    made = options_of("model", name)
    own = type(settings.model) if settings.model.name == name else ModelOptions
    values = _start(made) | {spec.name: getattr(settings.model, spec.name) for spec in fields(own)}
    told = _recorded(made, record)
    changed = {
        key: value
        for key, value in told.items()
        if not _typed(settings, f"model.{key}") and values.get(key) != value
    }
    if changed:
        say(
            f"as in training: {' '.join(f'model.{key}={_as_typed(value)}' for key, value in changed.items())}"
        )
    chosen: ModelOptions = made(**{**values, **changed, "name": name})
    return _on_window(settings, chosen, record.get("window", ()))


def _start(made: type[ModelOptions]) -> dict[str, Any]:
    """The defaults of a model's options."""
    found = {spec.name: spec.default for spec in fields(made) if spec.default is not MISSING}
    return found | {s.name: s.default_factory() for s in fields(made) if s.default_factory is not MISSING}


def _recorded(made: type[ModelOptions], record: Mapping[str, Any]) -> dict[str, Any]:
    """The options a record holds, as their types say; those that the model no longer has are left out."""
    hints = get_type_hints(made)
    known = {spec.name for spec in fields(made)} - {"name", *made.ELSEWHERE}
    found = {}
    for key, value in {**record.get("model", {}), **record.get("defaults", {})}.items():
        if key in known:
            try:
                found[key] = coerce(value, hints[key])
            except ValueError as error:
                where = f"model.{key} of the saved record"
                raise UserError(
                    f"{value!r} does not fit", where=where, expected=described(hints[key])
                ) from error
    return found


def _as_typed(value: Any) -> str:
    """A value as the command line takes it."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, (list, tuple)) else str(value)


def _typed(settings: Settings, path: str) -> bool:
    """Whether the command line names an option, or an entry of it."""
    return any(given == path or given.startswith(f"{path}.") for given in settings.explicit)


def _on_window(settings: Settings, chosen: ModelOptions, window: Any) -> ModelOptions:
    """Options on the window (X, Y, Z voxels) that something was trained on; empty where it is not known."""
    told = getattr(resolve("model", chosen.name), "listing", None)
    card = None if told is None else told().card
    # what only a folder or a user's card tells is compared when the adapter is loaded
    if card is None or card.fixed_window or not window or "model.window" in settings.explicit:
        return chosen
    if chosen.window is None and tuple(window) == card.window:
        return chosen
    return replace(chosen, window=(window[0], window[1], window[2]))
