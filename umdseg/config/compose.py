"""Hydra's composition with its mistakes collected instead of raised one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from hydra.version import setbase
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

import umdseg
from umdseg.config.values import Problem
from umdseg.errors import nearest

OPTIONAL_GROUPS = ("experiment", "debug")


def conf_dir() -> Path:
    """The folder of YAML files: inside an installed package, beside the package in a checkout."""
    package = Path(umdseg.__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


@cache
def groups() -> tuple[str, ...]:
    """The names of all groups."""
    return tuple(sorted(folder.name for folder in conf_dir().iterdir() if folder.is_dir()))


@contextmanager
def hydra_session(search: Sequence[str] = ()) -> Iterator[ConfigLoader]:
    """Hydra initialised on `conf_dir()`; whatever Hydra state there was is put back afterwards.

    Args:
        search: further folders of YAML files (`--config-dir`).
    """
    state = GlobalHydra.instance()
    before = state.hydra
    state.clear()
    try:
        setbase("1.3")
        path = create_config_search_path(str(conf_dir()))
        # Hydra looks at the search path once, so further folders must be there from the start
        for folder in search:
            path.prepend("--config-dir", f"file://{Path(folder).resolve()}", anchor="schema")
        Hydra.create_main_hydra2("umdseg", path)
        yield state.config_loader()
    finally:
        state.hydra = before


def search_problems(search: Sequence[str]) -> list[Problem]:
    """One problem for each further folder that does not exist; Hydra would pass over it in silence."""
    expected = "a folder of YAML files"
    return [Problem("--config-dir", f"'{name}'", expected) for name in search if not Path(name).is_dir()]


def parse(overrides: Sequence[str], loader: ConfigLoader) -> tuple[list[Override], list[Problem]]:
    """Parse override strings one by one, so that every syntax mistake is reported."""
    parser = OverridesParser.create(config_loader=loader)
    parsed: list[Override] = []
    problems: list[Problem] = []
    for text in overrides:
        try:
            parsed.extend(parser.parse_overrides([text]))
        except (OverrideParseException, HydraException):
            problems.append(
                Problem("command line", f"'{text}'", "key=value, such as adapter.rank=4 or model=vista3d")
            )
    return parsed, problems


def is_group(override: Override, loader: ConfigLoader) -> bool:
    """Whether an override chooses from a group (`model=vista3d`) rather than setting a value."""
    key = override.key_or_group
    return bool(loader.get_group_options(key, ObjectType.CONFIG)) or bool(loader.list_groups(key))


def normalise(override: Override, loader: ConfigLoader) -> tuple[str | None, list[Problem]]:
    """Return an override as Hydra shall see it (None when it cannot be used) and what is wrong with it.

    Values are set by force: which keys exist is the schema's business, which knows more than the YAML.
    """
    text = str(override.input_line)
    key = override.key_or_group
    if key.startswith(("hydra.", "hydra/")) or override.is_delete():
        return text, []
    if not is_group(override, loader):
        return "++" + text.lstrip("+"), []
    value = override.value()
    choices = loader.get_group_options(key, ObjectType.CONFIG)
    if isinstance(value, list):
        # Hydra would lay the files over each other, and the last one would win half of the options
        names = ",".join(map(str, value))
        problem = Problem(key, f"[{names}]", f"one name; several are a sweep: -m {key}={names}")
        return None, [problem]
    chosen = [value]
    if value is None and key in OPTIONAL_GROUPS:
        return text.lstrip("+"), []
    shown = ", ".join(choices)
    problems = [
        Problem(key, f"'{name}'", f"one of {shown}", nearest(str(name), choices))
        for name in chosen
        if str(name) not in choices
    ]
    return (None, problems) if problems else (text.lstrip("+"), [])


def composed(door: str, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str], list[Problem]]:
    """Compose and resolve the configuration; must run inside `hydra_session`.

    Returns:
        Plain nested Python, the file chosen of each group, and the problems Hydra itself found (then the rest
        is empty).
    """
    try:
        config = compose(door, overrides=list(overrides), return_hydra_config=True)
        choices = dict(config.hydra.runtime.choices)
        with open_dict(config):
            del config["hydra"]
        value: Any = OmegaConf.to_container(config, resolve=True)
        return value, choices, []
    except (HydraException, OmegaConfBaseException) as error:
        said = str(error).strip().splitlines()[0]
        where = str(getattr(error, "full_key", None) or "configuration")
        return {}, {}, [Problem(where, said, "a configuration Hydra can compose")]
