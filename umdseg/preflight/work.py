"""What a run will do, as far as its cost hangs on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from umdseg.data.geometry import Grid
from umdseg.preflight.fused import Joined


@dataclass(frozen=True)
class Work:
    """What the run will do.

    Attributes:
        train: grids of the training scans.
        score: grids of the scored scans.
        names: structures asked for.
        known: those of them that the model can be asked for by class.
        stages: how often every scored scan is predicted.
        fits: whether anything is fitted.
        channels: scans that one prediction takes together, brought onto the first one's grid.
        joined: what a fusion changes; None without one.
        together: (grid, passes per window) of what the fused model predicts, beside `score`.
        unknown: scans whose grid is not known, because the run makes them or they are broken.
    """

    train: Sequence[Grid]
    score: Sequence[Grid]
    names: Sequence[str]
    known: Sequence[str]
    stages: int
    fits: bool
    unknown: int = 0
    channels: int = 1
    joined: Joined | None = None
    together: Sequence[tuple[Grid, int]] = ()

    @property
    def grids(self) -> list[Grid]:
        """Of everything that is predicted."""
        return [*self.score, *(grid for grid, _ in self.together)]
