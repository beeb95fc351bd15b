"""Implicit shapes painted into a tissue map on any grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from umdseg.data.geometry import Grid

Floats = NDArray[np.float32]
Numbers = Sequence[float] | NDArray[np.float64]
Points = Sequence[Sequence[float]] | Sequence[NDArray[np.float64]] | NDArray[np.float64]
Keep = Callable[[Floats], NDArray[np.bool_]]
Box = tuple[slice, slice, slice]


@dataclass
class Canvas:
    """A tissue map under construction on one grid.

    The coordinates are those of an undeformed template; the deformation is already in them, so a
    shape written for the template comes out deformed, and identical in space on every grid.

    Attributes:
        grid: the voxel grid being painted.
        position: (3, X, Y, Z) template coordinates of each voxel, millimetres.
        wobble: (C, X, Y, Z) smooth unit-variance fields that roughen outlines.
        codes: (X, Y, Z) tissue codes.
        reach: how far (mm) the deformation can move a voxel.
    """

    grid: Grid
    position: Floats
    wobble: Floats
    codes: NDArray[np.uint8]
    reach: float

    def box(self, low: Numbers, high: Numbers) -> Box:
        """Index box that contains the template box [low, high] (mm) whatever the deformation."""
        a = self.grid.to_index(np.array([low], dtype=np.float64) - self.reach)[0]
        b = self.grid.to_index(np.array([high], dtype=np.float64) + self.reach)[0]
        start = np.clip(np.floor(np.minimum(a, b)), 0, self.grid.shape).astype(int)
        stop = np.clip(np.ceil(np.maximum(a, b)) + 1, 0, self.grid.shape).astype(int)
        return slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2])

    def paint(
        self, code: int, box: Box, inside: NDArray[np.bool_], over: Sequence[int] | None = None
    ) -> None:
        """Set `code` where `inside`, optionally only over the given tissue codes."""
        region = self.codes[box]
        if over is not None:
            inside = inside & np.isin(region, over)
        region[inside] = code


@dataclass(frozen=True)
class Field:
    """A smooth random field in space: unit-variance coefficients of cubic B-splines on a lattice.

    Attributes:
        origin: position (mm) of the first lattice node.
        step: lattice spacing in millimetres.
        values: (C, X, Y, Z) coefficients.
    """

    origin: NDArray[np.float64]
    step: float
    values: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator, extent: Grid, step: float, channels: int) -> Field:
        """Independent coefficients on a lattice that covers `extent`."""
        corners = extent.to_world(extent.corners())
        low, high = corners.min(axis=0) - 3 * step, corners.max(axis=0) + 3 * step
        count = np.ceil((high - low) / step).astype(int) + 1
        # a cubic B-spline keeps 0.479 of the variance along each axis
        values = rng.standard_normal((channels, *count)) / 0.479**1.5
        return cls(low, step, values.astype(np.float32))

    def on(self, grid: Grid) -> Floats:
        """Values (C, X, Y, Z) on an axis-aligned grid."""
        out = self.values
        for axis in range(3):
            positions = grid.affine[axis, 3] + grid.affine[axis, axis] * np.arange(grid.shape[axis])
            nodes = self.origin[axis] + self.step * np.arange(out.shape[axis + 1])
            weights = _bspline((positions[:, None] - nodes[None]) / self.step).astype(np.float32)
            out = np.moveaxis(np.tensordot(out, weights, axes=([axis + 1], [1])), -1, axis + 1)
        return np.ascontiguousarray(out)


def _bspline(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic B-spline, support -2 ... 2."""
    t = np.abs(t)
    near = 2 / 3 - t**2 + t**3 / 2
    far = np.clip(2 - t, 0, None) ** 3 / 6
    return np.where(t < 1, near, far)


def ellipsoid(
    canvas: Canvas,
    code: int,
    centre: Numbers,
    radii: Numbers,
    *,
    angles: Numbers = (0.0, 0.0, 0.0),
    rough: float = 0.05,
    channel: int = 0,
    over: Sequence[int] | None = None,
    keep: Keep | None = None,
) -> None:
    """Paint an ellipsoid.

    Args:
        canvas: where to paint.
        code: tissue code.
        centre: template millimetres.
        radii: semi-axes in millimetres.
        angles: rotation about x, y, z in degrees.
        rough: relative roughness of the outline.
        channel: which roughness field to use.
        over: only replace these tissues.
        keep: extra condition on template coordinates (3, ...).
    """
    reach = float(np.max(radii)) * (1 + 3 * rough)
    middle = np.asarray(centre, dtype=float)
    box = canvas.box(middle - reach, middle + reach)
    local = canvas.position[(slice(None), *box)] - middle.astype(np.float32)[:, None, None, None]
    turned = np.einsum("ij,jxyz->ixyz", rotation(angles).astype(np.float32), local)
    scaled = turned / np.asarray(radii, dtype=np.float32)[:, None, None, None]
    value = np.sqrt((scaled**2).sum(axis=0))
    inside = value < 1 + rough * canvas.wobble[channel % len(canvas.wobble)][box]
    if keep is not None:
        inside &= keep(canvas.position[(slice(None), *box)])
    canvas.paint(code, box, inside, over)


def tube(
    canvas: Canvas,
    code: int,
    knots: Points,
    radius: float | Numbers,
    *,
    over: Sequence[int] | None = None,
    keep: Keep | None = None,
) -> None:
    """Paint a tube along a smooth curve through `knots` (template mm); radius may vary along it."""
    points = np.asarray(knots, dtype=float)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    radii = np.broadcast_to(np.asarray(radius, dtype=float), (len(points),))
    steps = np.linspace(0, length[-1], max(2, int(length[-1] / (0.3 * radii.min())) + 1))
    curve = CubicSpline(length, points)(steps)
    widths = np.interp(steps, length, radii)
    for centre, width in zip(curve, widths, strict=True):
        box = canvas.box(centre - width, centre + width)
        local = canvas.position[(slice(None), *box)]
        inside = ((local - centre.astype(np.float32)[:, None, None, None]) ** 2).sum(axis=0) < width**2
        if keep is not None:
            inside &= keep(local)
        canvas.paint(code, box, inside, over)


def rotation(angles: Numbers) -> NDArray[np.float64]:
    """Rotation matrix for angles (degrees) about x, then y, then z."""
    a, b, c = np.deg2rad(angles)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)
