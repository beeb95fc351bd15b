"""Label maps in a folder of their own: one file a study, and a file that names the ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from umdseg.anatomy import canonical
from umdseg.data.sources.layout import niftis
from umdseg.data.structures import read_structures
from umdseg.errors import UserError

_NAMES = ("label_ids.json", "structures.yaml")
_FORM = 'label_ids.json ({"1": "liver", ...}) or structures.yaml (structures: {liver: 1, ...}) in it'


def label_folder(given: str | Path, option: str) -> tuple[dict[str, Path], dict[str, int]]:
    """Files and structures of a folder of label maps.

    Args:
        given: the folder.
        option: config path, for errors.

    Returns:
        Name without ending -> file, and canonical structure -> id.

    Raises:
        UserError: no such folder, nothing in it, or ids that are not named.
    """
    files = label_files(given, option)
    folder = Path(given).expanduser()
    table, yaml = (folder / name for name in _NAMES)
    if table.is_file():
        return files, _read_json(table)
    if yaml.is_file():
        return files, read_structures(yaml)[1]
    raise UserError("nothing names the ids of the label maps", where=f"{option}={given}", expected=_FORM)


def label_files(given: str | Path, option: str) -> dict[str, Path]:
    """Name without ending -> NIfTI file of a folder.

    Raises:
        UserError: no such folder, or nothing in it.
    """
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise UserError("folder of label maps is missing", where=f"{option}={given}", expected="a folder")
    files = niftis(folder)
    if not files:
        expected = "one NIfTI label map a study"
        raise UserError("folder has no label maps", where=f"{option}={given}", expected=expected)
    return files


def _read_json(path: Path) -> dict[str, int]:
    """`{"0": "background", "1": "liver", ...}`."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        named = {int(id): str(name) for id, name in content.items()}
    except (ValueError, AttributeError) as error:
        raise UserError(f"not a table of ids and names: {error}", where=path, expected=_FORM) from error
    structures: dict[str, int] = {}
    for id, name in named.items():
        if id == 0:
            continue
        try:
            known = canonical(name)
        except UserError as error:
            raise UserError(error.what, where=path, expected=error.expected, nearest=error.nearest) from error
        if known in structures:
            what = f"ids {structures[known]} and {id} are both '{known}'"
            raise UserError(what, where=path, expected="every structure once")
        structures[known] = id
    return structures
