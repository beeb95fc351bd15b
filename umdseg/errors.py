"""One kind of error for user mistakes: what was wrong, where, what was expected, the nearest choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake a user can mend; the doors print it on one screen without a traceback.

    Args:
        what: what was wrong, one sentence.
        where: file, subject or config path the mistake sits in.
        expected: what would have been right.
        nearest: the nearest valid choice, if there is one.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object | None = None,
        expected: str | None = None,
        nearest: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.nearest = what, where, expected, nearest
        parts = [what]
        if where is not None:
            parts.append(f"  where:    {where}")
        if expected:
            parts.append(f"  expected: {expected}")
        if nearest:
            parts.append(f"  did you mean: {nearest}")
        super().__init__("\n".join(parts))


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `name` (None when nothing is alike)."""
    known = {choice.lower(): choice for choice in choices}
    hits = difflib.get_close_matches(str(name).lower(), list(known), n=1, cutoff=0.5)
    return known[hits[0]] if hits else None


def unknown(kind: str, name: str, choices: Iterable[str], where: object | None = None) -> UserError:
    """Build the error for a name that is in no table of `kind`, with its nearest neighbour."""
    options = sorted(choices)
    shown = ", ".join(options[:40]) + (f", ... ({len(options)} in all)" if len(options) > 40 else "")
    what = f"unknown {kind} '{name}'"
    return UserError(what, where=where, expected=f"one of {shown}", nearest=nearest(name, options))
