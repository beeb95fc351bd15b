"""Names that people gave to regions -> canonical structures with ids, and what could not be named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from umdseg.anatomy import canonical, structures
from umdseg.data.verdict import Finding
from umdseg.errors import UserError


class RoiNames:
    """Tells which structure a region is.

    A region is what `--roi NAME=structure` says (case does not matter, `*` stands for anything, the first
    that fits counts; without a structure the region is left out), otherwise what its own name means in
    `umdseg.anatomy`, otherwise what the codes of a segment mean.

    Args:
        given: `NAME=structure` texts.

    Raises:
        UserError: a text without `=`, or an unknown structure.
    """

    def __init__(self, given: Sequence[str]) -> None:
        self.given = [_pair(text) for text in given]

    def structure(self, names: Sequence[str]) -> str | None:
        """The structure of a region of these names, None if it has none in the table."""
        given = self._given(names)
        if given:
            return given[0][1]
        for name in names:
            try:
                return canonical(name)
            except UserError:
                continue
        return None

    def ids(self, regions: Iterable[Sequence[str]]) -> dict[str, int]:
        """Structure -> id (1, 2, ... in the order of the table) for all structures of these regions."""
        found = {self.structure(names) for names in regions}
        return {name: i for i, name in enumerate((s for s in structures() if s in found), start=1)}

    def findings(self, regions: Sequence[Sequence[str]]) -> list[Finding]:
        """Regions that are left out, names that were taken by code, and `--roi` that fits nothing.

        Only `where` and `nearest` hold names that people gave.
        """
        found = []
        unnamed = [names for names in regions if self.structure(names) is None and not self._given(names)]
        left = Counter(names[0] for names in unnamed)
        for name, count in sorted(left.items()):
            expected = f"a known structure: --roi '{name}=STRUCTURE' (all of them: umdseg list structures)"
            what = f"region of {count} label object{'s' * (count != 1)} has no structure and is left out"
            found.append(Finding("warn", what, f"'{name}'", expected, _alike(name)))
        coded = {names[0]: self.structure(names) for names in regions if not self.structure(names[:1])}
        for name, meant in sorted(coded.items()):
            if meant:
                found.append(Finding("warn", f"region is taken as {meant} by its code", f"'{name}'"))
        known = sorted({names[0] for names in regions})
        for pattern, structure in self.given:
            if not any(_fits(name, pattern) for name in known):
                shown = ", ".join(f"'{name}'" for name in known[:20]) or "no label objects at all"
                where = f"--roi '{pattern}={structure or ''}'"
                found.append(Finding("warn", "no region has this name", where, shown))
        return found

    def _given(self, names: Sequence[str]) -> list[tuple[str, str | None]]:
        return [pair for pair in self.given if _fits(names[0], pair[0])]


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name.lower(), pattern.lower())


def _pair(text: str) -> tuple[str, str | None]:
    pattern, equals, structure = text.rpartition("=")
    if not equals or not pattern.strip():
        raise UserError(f"'{text}' names no structure", where="--roi", expected="--roi 'GTV_Mass*=tumour'")
    try:
        return pattern.strip(), canonical(structure) if structure.strip() else None
    except UserError as error:
        raise UserError(error.what, where="--roi", expected=error.expected, nearest=error.nearest) from error


def _alike(name: str) -> str | None:
    try:
        return canonical(name)
    except UserError as error:
        return error.nearest
