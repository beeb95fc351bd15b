"""Scores of the same subjects and structures side by side, and what could not be matched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from umdseg.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

# of one label on one grid volumes are equal to the last digit; this allows for files written elsewhere
_SAME = 1e-6


def matched(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The scores of subjects and structures that all tables have.

    Args:
        tables: by name, as `umdseg.evaluation.selection.scores` gives them.

    Returns:
        Index (subject, structure), one column of scores per name.
    """
    import pandas as pd

    joined = pd.concat({name: table["score"] for name, table in tables.items()}, axis=1, join="inner")
    return joined.dropna().sort_index()


def left_out(names: tuple[str, str], a: pd.DataFrame, b: pd.DataFrame) -> list[str]:
    """One sentence for each table whose rows the other lacks: who and what is only in one of them."""
    told = []
    for name, one, other in ((names[0], a, b), (names[1], b, a)):
        alone = one.index.difference(other.index)
        if len(alone) == 0:
            continue
        subjects = _only("subject", one, other)
        structures = _only("structure", one, other)
        parts = [
            f"{what} {_few(who)}" for what, who in (("subjects", subjects), ("structures", structures)) if who
        ]
        rest = alone[
            ~alone.get_level_values("subject").isin(subjects)
            & ~alone.get_level_values("structure").isin(structures)
        ]
        if len(rest):
            parts.append(f"{len(rest)} structures of subjects in both")
        told.append(f"scored in {name} only: {', '.join(parts)}")
    return told


def other_labels(a: pd.DataFrame, b: pd.DataFrame) -> str:
    """Where the reference volumes of two tables differ, so that labels or grids do; "" if nowhere."""
    import pandas as pd

    both = pd.concat({"a": a["volume"], "b": b["volume"]}, axis=1, join="inner").dropna()
    first, second = both["a"].to_numpy(dtype=float), both["b"].to_numpy(dtype=float)
    differs = np.abs(first - second) > _SAME * np.maximum(np.abs(first), np.abs(second))
    if not differs.any():
        return ""
    at = int(np.flatnonzero(differs)[0])
    subject, structure = both.index[at]
    return (
        f"reference volumes differ in {int(differs.sum())} of {len(both)} structures "
        f"({subject}, {structure}: {first[at]:.4g} and {second[at]:.4g} ml)"
    )


def refuse_other_labels(names: tuple[str, str], a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Refuse subjects of one name that have other labels.

    Raises:
        UserError: naming the first.
    """
    if told := other_labels(a, b):
        raise UserError(
            f"{names[0]} and {names[1]} have other labels under the same names",
            where=told,
            expected="runs on one dataset, scored on one grid",
        )


def _only(level: str, one: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    mine, theirs = (set(table.index.get_level_values(level)) for table in (one, other))
    return sorted(map(str, mine - theirs))


def _few(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
