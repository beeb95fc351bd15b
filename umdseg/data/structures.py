"""The small YAML that names the structures of a dataset's labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from umdseg.anatomy import canonical
from umdseg.errors import UserError

_FORM = "structures: {liver: 1, spleen: 2}"


def read_structures(path: Path | str, default_name: str = "") -> tuple[str, dict[str, int]]:
    """Read the YAML that names a dataset's structures.

    Returns:
        The dataset's name, and canonical structure name -> id.

    Raises:
        UserError: missing or malformed file, a name that stands twice, unknown structure, an id that is
            used twice or is not a positive whole number.
    """
    path = Path(path)
    if not path.is_file():
        what = "the file naming the structures of the labels is missing"
        raise UserError(what, where=path, expected=f"YAML: {_FORM}")
    try:
        content: Any = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"not readable as YAML: {error}", where=path, expected=_FORM) from error
    given = content.get("structures") if isinstance(content, Mapping) else None
    if not isinstance(given, Mapping) or not given:
        raise UserError("no structures are named", where=path, expected=_FORM)
    structures: dict[str, int] = {}
    for name, number in given.items():
        if not isinstance(name, str) or isinstance(number, bool) or not isinstance(number, int):
            raise UserError(f"{name!r}: {number!r} is not a name with an id", where=path, expected=_FORM)
        if name == "background" and number == 0:
            continue
        _add(structures, name, number, f"{path}: structures")
    return str(content.get("name") or default_name), structures


def structures_text(name: str, structures: Mapping[str, int]) -> str:
    """The YAML for a dataset's name and structures, as `read_structures` reads it."""
    return yaml.safe_dump({"name": name, "structures": dict(structures)}, sort_keys=False)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice; YAML's own loader keeps the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"'{twice}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _add(structures: dict[str, int], name: str, number: int, where: str) -> None:
    try:
        known = canonical(name)
    except UserError as error:
        raise UserError(error.what, where=where, expected=error.expected, nearest=error.nearest) from error
    if number < 1 or number >= 2**15:
        raise UserError(f"structure '{name}' has id {number}", where=where, expected="ids from 1 to 32767")
    taken = next((other for other, used in structures.items() if used == number), None)
    if taken or known in structures:
        what = f"structure '{known}' is named twice"
        if taken:
            what = f"id {number} is given to both '{taken}' and '{name}'"
        raise UserError(what, where=where, expected="every structure once, with its own id")
    structures[known] = number
