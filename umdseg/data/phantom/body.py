"""One person's anatomy: body outline, bones and organs at adult size, varied by seed.

Template coordinates are patient millimetres (RAS+): +x right, +y anterior, +z superior, z = 0 at the
dome of the diaphragm. Positions and sizes follow an average adult (organ volumes: ICRP
Publication 89 reference values, rounded); every subject varies around them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from umdseg.data.geometry import Grid
from umdseg.data.phantom.shapes import Canvas, Field, Floats
from umdseg.data.phantom.skeleton import paint_skeleton
from umdseg.data.phantom.thorax import paint_chest
from umdseg.data.phantom.torso import paint_body
from umdseg.data.phantom.vary import Habitus, Vary
from umdseg.data.phantom.viscera import paint_abdomen, paint_brain
from umdseg.seeds import generator

Extent = tuple[tuple[float, float, float], tuple[float, float, float]]
FIELD_OF_VIEW: Extent = ((-215.0, -155.0, -475.0), (215.0, 165.0, 525.0))
WARP_MM, WARP_STEP, ROUGH_STEP = 5.0, 70.0, 28.0


@dataclass(frozen=True)
class Breathing:
    """Displacement of the organs around the diaphragm, in millimetres towards the head."""

    millimetres: float = 0.0

    def shift(self, z: np.ndarray) -> np.ndarray:
        """Shift (mm) at template height z: largest at the diaphragm, none beyond 150 mm."""
        return self.millimetres * np.exp(-((z / 75.0) ** 2))


class Anatomy:
    """One subject's anatomy, the same in space on whatever grid it is painted.

    Args:
        seed: subject seed; the same seed gives the same anatomy.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.habitus = Habitus.draw(generator(seed, "habitus"))
        whole = grid_over(FIELD_OF_VIEW, (10.0, 10.0, 10.0))
        self._warp = Field.draw(generator(seed, "warp"), whole, WARP_STEP, 3)
        self._rough = Field.draw(generator(seed, "rough"), whole, ROUGH_STEP, 4)

    def paint(self, grid: Grid, breathing: Breathing | None = None) -> np.ndarray:
        """Tissue codes (X, Y, Z) uint8 on `grid`."""
        canvas = self._canvas(grid, breathing or Breathing())
        # every organ draws from its own generator, so adding one does not move the others
        vary = Vary(self.seed, self.habitus)
        paint_body(canvas, vary)
        paint_skeleton(canvas, vary)
        paint_brain(canvas, vary)
        paint_chest(canvas, vary)
        paint_abdomen(canvas, vary)
        return canvas.codes

    def _canvas(self, grid: Grid, breathing: Breathing) -> Canvas:
        axes = [np.arange(n, dtype=np.float32) * s for n, s in zip(grid.shape, grid.spacing, strict=True)]
        position = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
        position += grid.affine[:3, 3].astype(np.float32)[:, None, None, None]
        position /= np.asarray(self.habitus.scale, dtype=np.float32)[:, None, None, None]
        position += WARP_MM * self._warp.on(grid)
        if breathing.millimetres:
            position[2] -= breathing.shift(position[2])
        return Canvas(
            grid=grid,
            position=position,
            wobble=self._rough.on(grid),
            codes=np.zeros(grid.shape, dtype=np.uint8),
            reach=3.5 * WARP_MM + 0.12 * 60 + abs(breathing.millimetres),
        )


def grid_over(box: Extent, spacing: tuple[float, float, float]) -> Grid:
    """The axis-aligned grid of the given spacing whose voxels cover `box` (mm)."""
    low, high, step = (np.asarray(v, dtype=float) for v in (*box, spacing))
    count = np.round((high - low) / step).astype(int)
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = low + step / 2
    return Grid((int(count[0]), int(count[1]), int(count[2])), affine)


def texture(seed: int, name: str, grid: Grid, step: float = 22.0, box: Extent = FIELD_OF_VIEW) -> Floats:
    """A smooth unit-variance field (X, Y, Z) for variation inside tissues, fixed in space by seed."""
    whole = grid_over(box, (10.0, 10.0, 10.0))
    field: Floats = Field.draw(generator(seed, "texture", name), whole, step, 1).on(grid)[0]
    return field
