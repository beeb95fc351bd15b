"""Plain values -> options dataclasses, with every mistake collected."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from umdseg.config.values import Problem
from umdseg.errors import UserError, nearest

UNKNOWN = "unknown name"


def build(
    cls: type,
    given: Any,
    path: str,
    problems: list[Problem],
    flat: dict[str, Any],
    also: Sequence[str] = (),
) -> Any:
    """Make an options dataclass from plain values, adding every mistake to `problems`.

    Args:
        cls: dataclass with defaults.
        given: mapping of its fields.
        path: config path of the section.
        problems: grows by what is wrong.
        flat: grows by config path -> typed value, also where the section as a whole is wrong.
        also: further names at this level, for suggestions.

    Returns:
        The dataclass, or None when something was wrong.
    """
    if not isinstance(given, Mapping):
        problems.append(Problem(path, repr(given), f"a section with {_names(cls)}"))
        return None
    before = len(problems)
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls) if f.init}
    values: dict[str, Any] = {}
    for key, value in given.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in known:
            near = nearest(str(key), [*known, *also])
            problems.append(
                Problem(
                    where,
                    UNKNOWN,
                    f"one of {', '.join([*known, *also])}",
                    f"{path}.{near}" if near and path else near,
                )
            )
        elif is_dataclass(hints[key]):
            values[key] = build(hints[key], value, where, problems, flat)
        else:
            try:
                values[key] = flat[where] = coerce(value, hints[key])
            except ValueError as error:
                problems.append(Problem(where, repr(value), *error.args))
    for name, spec in known.items():
        if name not in given and spec.default is MISSING and spec.default_factory is MISSING:
            problems.append(Problem(f"{path}.{name}", "nothing", described(hints[name])))
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except UserError as error:
        problems.append(Problem(str(error.where or path), error.what, error.expected or "", error.nearest))
        return None


def coerce(value: Any, hint: Any) -> Any:
    """Convert a value to a type the way OmegaConf does.

    Raises:
        ValueError: with what was expected (and the nearest choice, where there are choices).
    """
    choices = _choices(hint)
    if choices and value is not None and value not in choices:
        raise ValueError(f"one of {', '.join(choices)}", nearest(str(value), choices))
    if hint is bool and not isinstance(value, bool):
        raise ValueError("true or false", None)
    try:
        box = OmegaConf.structured(make_dataclass("Box", [("value", _plain(hint), field(default="???"))]))
        box.value = value
        result = getattr(OmegaConf.to_object(box), "value")  # noqa: B009
    except OmegaConfBaseException as error:
        raise ValueError(described(hint), None) from error
    arms = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    sized = next((arm for arm in arms if get_origin(arm) is tuple), None)
    if sized is None or result is None:
        return result
    if len(result) != len(get_args(sized)):
        raise ValueError(described(hint), None)
    return tuple(result)


def described(hint: Any) -> str:
    """A type in words: "int", "list of str", "float or null"."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (Union, types.UnionType):
        return " or ".join("null" if arg is type(None) else described(arg) for arg in args)
    if origin is list:
        return f"list of {described(args[0])}, such as [a,b]"
    if origin is dict:
        return f"table of {described(args[0])} to {described(args[1])}, such as {{a:1}}"
    if origin is tuple:
        return f"list of {len(args)} {described(args[0])}"
    return str(getattr(hint, "__name__", hint))


def _choices(hint: Any) -> tuple[str, ...]:
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(choice for arg in get_args(hint) for choice in _choices(arg))
    return ()


def _plain(hint: Any) -> Any:
    """The type OmegaConf knows in place of one it does not (Literal)."""
    if get_origin(hint) is Literal:
        return str
    if get_origin(hint) in (Union, types.UnionType) and _choices(hint):
        return str | None
    return hint


def _names(cls: type) -> str:
    return ", ".join(spec.name for spec in fields(cls))
