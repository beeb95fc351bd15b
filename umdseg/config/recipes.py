"""Recipes (`experiment=`, `debug=`) with another adapter than they were written for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from hydra import compose

from umdseg.config.compose import OPTIONAL_GROUPS
from umdseg.config.schema import options_of
from umdseg.errors import UserError
from umdseg.registry import names

SECTION = "adapter"


def without_foreign(
    plain: Mapping[str, Any], choices: Mapping[str, str], typed: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """A configuration without the recipe's options of the adapter that the chosen one has no use for.

    Options that no adapter has, those that the user typed, and those in the adapter's own file stay, for the
    check to refuse. Must run inside `hydra_session`.

    Args:
        plain: the configuration as Hydra composed it.
        choices: the file chosen of each group.
        typed: config paths given on the command line.

    Returns:
        The configuration, and a line that names what was dropped, if anything was.
    """
    section = plain.get(SECTION)
    given = section if isinstance(section, Mapping) else {}
    odd = [key for key in _odd(given) if f"{SECTION}.{key}" not in typed]
    if not odd:
        return dict(plain), []
    own = _own_file(choices[SECTION])
    dropped = [key for key in odd if own.get(key) is None]
    if not dropped:
        return dict(plain), []
    rest = {key: value for key, value in given.items() if key not in dropped}
    recipes = [f"{group}={choices[group]}" for group in OPTIONAL_GROUPS if choices.get(group)]
    told = " and ".join(f"{SECTION}.{key}" for key in dropped)
    where, method = " ".join(recipes) or "configuration", given["name"]
    return {**plain, SECTION: rest}, [f"{where}: {told} dropped, which adapter '{method}' has no use for"]


def _odd(given: Mapping[str, Any]) -> list[str]:
    """Options of an adapter that are another's."""
    try:
        known = _options(str(given.get("name")))
    except UserError:
        # there is no such adapter, which the check says
        return []
    unknown = [key for key in given if key not in known]
    others = {key for name in names(SECTION) for key in _options(name)} if unknown else set()
    # the plain model has nothing to keep apart; of learned structures alone the user may ask for it
    routed = given.get("name") == "none" and given.get("per") is not None
    return [key for key in unknown if key in others] + (["per"] if routed else [])


def _options(name: str) -> set[str]:
    return {spec.name for spec in fields(options_of(SECTION, name)) if spec.init}


def _own_file(chosen: str) -> Mapping[str, Any]:
    """What a file of the group says by itself."""
    own: Mapping[str, Any] = compose(f"{SECTION}/{chosen}").get(SECTION, {})
    return own
