"""How subjects differ: habitus, and jitter of every organ's place, size and tilt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umdseg.data.phantom.shapes import Numbers, Points
from umdseg.seeds import derive


@dataclass(frozen=True)
class Habitus:
    """Build of one subject.

    Attributes:
        scale: template -> subject along x, y, z.
        fat: thickness of subcutaneous fat in millimetres.
        visceral: share of the abdominal cavity's free space that is fat (rest bowel loops).
        bladder: filling of the bladder relative to the template.
        stomach: filling of the stomach relative to the template.
    """

    scale: tuple[float, float, float]
    fat: float
    visceral: float
    bladder: float
    stomach: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Habitus:
        """Draw a build; the z scale follows height, x and y follow weight."""
        height = float(np.clip(rng.normal(1.0, 0.035), 0.91, 1.05))
        weight = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12))
        return cls(
            scale=(weight * height**0.5, weight * float(rng.normal(1, 0.03)), height),
            fat=float(np.clip(rng.lognormal(np.log(16), 0.35), 7, 34)),
            visceral=float(rng.uniform(0.35, 0.65)),
            bladder=float(np.clip(rng.lognormal(0, 0.22), 0.62, 1.5)),
            stomach=float(np.clip(rng.lognormal(0, 0.15), 0.72, 1.35)),
        )


class Vary:
    """Seeded jitter; each organ has its own stream.

    Args:
        seed: subject seed.
        habitus: the subject's build.
    """

    def __init__(self, seed: int, habitus: Habitus) -> None:
        self.seed, self.habitus = seed, habitus

    def rng(self, organ: str) -> np.random.Generator:
        """The organ's own generator."""
        return np.random.default_rng(derive(self.seed, "organ", organ))

    def place(self, organ: str, centre: Numbers, sd: float = 5.0) -> NDArray[np.float64]:
        """Centre moved by a normal of `sd` millimetres along each axis."""
        moved = self.rng(organ + "/place").standard_normal(3).clip(-2.2, 2.2)
        return np.asarray(centre, dtype=float) + sd * moved

    def size(self, organ: str, radii: Numbers, sd: float = 0.07) -> NDArray[np.float64]:
        """Radii scaled by a common and a small separate lognormal factor."""
        rng = self.rng(organ + "/size")
        common, own = rng.standard_normal(), rng.standard_normal(len(radii))
        factors = np.exp(sd * np.clip(common, -2.2, 2.2) + 0.04 * own.clip(-2, 2))
        return np.asarray(np.asarray(radii, dtype=float) * factors)

    def tilt(self, organ: str, angles: Numbers = (0.0, 0.0, 0.0), sd: float = 6.0) -> NDArray[np.float64]:
        """Angles (degrees) with normal jitter."""
        return np.asarray(angles, dtype=float) + sd * self.rng(organ + "/tilt").standard_normal(3).clip(-2, 2)

    def path(self, organ: str, knots: Points, sd: float = 4.0) -> NDArray[np.float64]:
        """Knots of a curve, each moved a little."""
        points = np.asarray(knots, dtype=float)
        return points + sd * self.rng(organ + "/path").standard_normal(points.shape).clip(-2, 2)

    def factor(self, organ: str, sd: float = 0.08) -> float:
        """One lognormal factor."""
        return float(np.exp(sd * np.clip(self.rng(organ + "/factor").standard_normal(), -2.2, 2.2)))
