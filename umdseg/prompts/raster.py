"""Lassos and scribbles in patient millimetres as voxels of a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Array, Grid
from umdseg.prompts.contours import plane_of
from umdseg.vocabulary import Contour

Voxel = tuple[int, int, int]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Marked:
    """The voxels that a contour marks.

    Attributes:
        start: index of the first voxel of the smallest box that holds them.
        mask: (X', Y', Z') of that box.
    """

    start: Voxel
    mask: NDArray[np.bool_]

    @property
    def stop(self) -> Voxel:
        """Index after the box's last voxel."""
        x, y, z = (a + n for a, n in zip(self.start, self.mask.shape, strict=True))
        return x, y, z


def mark(contour: Contour, grid: Grid, thickness: Sequence[float]) -> Marked | None:
    """Voxels of a grid that a contour marks; what lies outside the grid is left out.

    A lasso marks the voxels of a layer, one voxel thick, along its plane: those whose centre, moved along the
    grid's axis most nearly across the plane onto it, it surrounds (the even-odd rule; on the line is inside).
    In a plane along the grid that is one slice, the nearest. A lasso between all centres marks its line.

    A scribble marks the voxels of each slice that lie within half its thickness of the line. Slices are those
    across the axis along which it reaches least; of equals, of the one nearest to the patient's long axis.

    Args:
        contour: as `check_contour` wants it.
        grid: of the scan or window.
        thickness: of scribbles in voxels, by the axis their slice lies across.

    Returns:
        The voxels, or None where all are outside the grid.
    """
    # a thousandth of a voxel: affines in float32 must not make equal lines differ
    index = np.round(grid.to_index(np.array(contour.points, dtype=np.float64)), 3)
    if not contour.closed:
        return _marked(_line(index, grid, thickness))
    found = _surrounded(index, _normal(contour, grid), grid)
    if not len(found):
        found = _line(np.concatenate([index, index[:1]]), grid, (1.0, 1.0, 1.0))
    return _marked(found)


def _normal(contour: Contour, grid: Grid) -> Array:
    """(3,) of the lasso's plane, as a form on voxel indices."""
    _, normal = plane_of(np.array(contour.points, dtype=np.float64))
    turned: Array = grid.affine[:3, :3].T @ normal
    return turned


def _surrounded(index: Array, normal: Array, grid: Grid) -> Indices:
    """(M, 3) voxels inside a polygon of voxel indices (N, 3)."""
    from skimage import measure

    # its functions have no types
    polygons: Any = measure
    across = int(np.argmax(np.abs(normal)))
    along = [axis for axis in range(3) if axis != across]
    low = np.maximum(np.ceil(index[:, along].min(axis=0)).astype(int), 0)
    high = np.minimum(np.floor(index[:, along].max(axis=0)).astype(int) + 1, np.array(grid.shape)[along])
    if (low >= high).any():
        return np.zeros((0, 3), dtype=np.intp)
    covered = polygons.grid_points_in_poly(tuple(high - low), index[:, along] - low)
    inside: Indices = np.argwhere(covered) + low
    middle = index.mean(axis=0)
    height = middle[across] - (inside - middle[along]) @ normal[along] / normal[across]
    level = np.rint(np.round(height, 3)).astype(int)
    found = np.insert(inside, across, level, axis=1)
    held: Indices = found[(level >= 0) & (level < grid.shape[across])]
    return held


def _line(index: Array, grid: Grid, thickness: Sequence[float]) -> Indices:
    """(M, 3) voxels along corners (N, 3); the ones nearest to the corners always are among them."""
    across = _flat_axis(index, grid)
    corners = np.rint(index).astype(np.intp)
    found = [corners[((corners >= 0) & (corners < grid.shape)).all(axis=1)]]
    for first, last in pairwise(index):
        for level, start, stop in _by_slice(first, last, across, grid.shape[across]):
            found.append(_stroke(start, stop, across, level, thickness[across] / 2, grid.shape))
    return np.concatenate(found)


def _flat_axis(index: Array, grid: Grid) -> int:
    """The axis along which the points reach least; of equals, the nearest to the patient's long axis."""
    reach = index.max(axis=0) - index.min(axis=0)
    upright = np.abs(grid.affine[2, :3]) / np.array(grid.spacing)
    return int(np.argmax(np.where(reach <= reach.min() + 1e-3, upright, -1.0)))


def _by_slice(first: Array, last: Array, across: int, count: int) -> Iterator[tuple[int, Array, Array]]:
    """The slices that a piece of line runs through, each with the ends (3,) of its part of the piece."""
    a, b = float(first[across]), float(last[across])
    if a == b:
        if 0 <= round(a) < count:
            yield round(a), first, last
        return
    low, high = max(int(np.rint(min(a, b))), 0), min(int(np.rint(max(a, b))), count - 1)
    for level in range(low, high + 1):
        shares = sorted(((level - 0.5 - a) / (b - a), (level + 0.5 - a) / (b - a)))
        start, stop = np.clip(shares, 0.0, 1.0)
        yield level, first + start * (last - first), first + stop * (last - first)


def _stroke(first: Array, last: Array, across: int, level: int, radius: float, shape: Voxel) -> Indices:
    """(M, 3) voxels of one slice within `radius` voxels of a piece of line."""
    along = [axis for axis in range(3) if axis != across]
    a, b = first[along], last[along]
    low = np.maximum(np.ceil(np.minimum(a, b) - radius).astype(int), 0)
    high = np.minimum(np.floor(np.maximum(a, b) + radius).astype(int) + 1, np.array(shape)[along])
    if (low >= high).any():
        return np.zeros((0, 3), dtype=np.intp)
    near = np.argwhere(np.ones(high - low, dtype=bool)) + low
    length = float(((b - a) ** 2).sum())
    share = np.clip((near - a) @ (b - a) / length, 0, 1) if length else np.zeros(len(near))
    distance = np.linalg.norm(near - a - share[:, None] * (b - a), axis=1)
    return np.insert(near[distance <= radius + 1e-6], across, level, axis=1)


def _marked(voxels: Indices) -> Marked | None:
    if not len(voxels):
        return None
    low = voxels.min(axis=0)
    mask = np.zeros(voxels.max(axis=0) + 1 - low, dtype=bool)
    mask[tuple((voxels - low).T)] = True
    return Marked((int(low[0]), int(low[1]), int(low[2])), mask)
