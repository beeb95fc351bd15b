"""Folders of public datasets: where they start, what is in them, and one clear error when it is not."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from umdseg.errors import UserError


def root_of(given: str | None, name: str, holds: str) -> Path:
    """The folder a user gave.

    Args:
        given: `data.root`.
        name: of the source.
        holds: what lies in the folder, in words.

    Raises:
        UserError: none was given, or there is no such folder.
    """
    if not given:
        raise UserError(
            f"data={name} needs the folder of the dataset",
            where="data.root",
            expected=f"python train.py data={name} data.root=FOLDER, where FOLDER holds {holds}",
        )
    root = Path(given).expanduser()
    if not root.is_dir():
        expected = f"a folder that holds {holds}"
        raise UserError("folder is missing", where=f"data.root={root}", expected=expected)
    return root


def not_here(root: Path, holds: str, fits: Callable[[Path], bool]) -> UserError:
    """The error for a folder without the dataset, with the place one or two levels off where it is."""
    below = sorted(p for pattern in ("*", "*/*") for p in root.glob(pattern) if p.is_dir())
    nearest = next((p for p in (*root.resolve().parents[:2], *below) if fits(p)), None)
    return UserError(
        "the dataset is not in this folder",
        where=f"data.root={root}",
        expected=holds,
        nearest=f"data.root={nearest}" if nearest else None,
    )


def niftis(folder: Path) -> dict[str, Path]:
    """Name without ending -> NIfTI file, by name; hidden files (`._x` of a Mac's archive) are left out.

    Raises:
        UserError: one name with two endings.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = re.fullmatch(r"(?!\.)(.+?)\.nii(\.gz)?", path.name)
        if match is None:
            continue
        if match[1] in found:
            both = f"{found[match[1]].name} and {path.name}"
            raise UserError(f"two files of one name: {both}", where=folder, expected="one of them")
        found[match[1]] = path
    return found


def some(names: Collection[str], total: int, what: str, where: object, expected: str) -> UserError:
    """The error for a few of many, with counts and the first names."""
    first = sorted(names)
    shown = ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")
    return UserError(f"{len(first)} of {total} {what}: {shown}", where=where, expected=expected)


def matched(names: Iterable[str], pattern: str, where: Path, form: str) -> dict[str, re.Match[str]]:
    """Match every name against a pattern.

    Raises:
        UserError: names that do not fit, with their number.
    """
    found = {name: re.fullmatch(pattern, name) for name in names}
    odd = [name for name, match in found.items() if match is None]
    if odd:
        raise some(odd, len(found), "files have unexpected names", where, f"names like {form}")
    return {name: match for name, match in found.items() if match is not None}


def once(seen: dict[str, Path], name: str, folder: Path) -> None:
    """Remember where a subject lies.

    Raises:
        UserError: it lies in two folders.
    """
    if name in seen:
        what = f"subject {name} is in two folders"
        raise UserError(what, where=f"{seen[name]} and {folder}", expected="every subject once, in one split")
    seen[name] = folder


def normal(name: str) -> str:
    """A name in lower case with one underscore for anything that is no letter or digit.

    Blanks in names of studies are often lost in copies: "CT Ganzkoerper  primaer" and
    "CT_Ganzkoerper_primaer" are one.
    """
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def only(structures: Mapping[str, int], chosen: Collection[str] | None) -> dict[str, int]:
    """The structures chosen (all when None), in the order of the table."""
    return {name: id for name, id in structures.items() if chosen is None or name in chosen}
