"""Masks on another grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg.data.geometry import Grid, resample

# axes that stray from another grid's by less than this (in its voxels, end to end) run along them
_STRAYING = 1e-3
# slices of the target worked on at a time
_SLAB = 32


def mask_on(mask: NDArray[np.bool_], own: Grid, grid: Grid) -> NDArray[np.bool_]:
    """A mask on another grid: where it takes half or more of the trilinear interpolation.

    Args:
        mask: (X, Y, Z) on `own`.
        own: grid of the mask.
        grid: wanted grid.

    Returns:
        (X, Y, Z) on `grid`; False outside the field of view.
    """
    if (place := grid.within(own)) is not None:
        return mask[place]
    matrix = np.linalg.inv(own.affine) @ grid.affine
    along = _axes(matrix, grid.shape)
    if along is None:
        values = torch.from_numpy(mask.astype(np.float32))[None]
        return np.asarray(resample(values, own, grid, outside=0.0)[0].numpy() >= 0.5)
    turned = mask.transpose(along)
    # between parallel grids that is one interpolation along each axis, many times faster
    x, y, z = (
        _Line.of(matrix[axis, target] * np.arange(grid.shape[target]) + matrix[axis, 3], mask.shape[axis])
        for target, axis in enumerate(along)
    )
    found = np.zeros(grid.shape, dtype=bool)
    for start in range(0, grid.shape[2], _SLAB):
        line = z.part(slice(start, start + _SLAB))
        first = int(line.below.min())
        part = turned[:, :, first : int(line.above.max()) + 1]
        if part.any():
            share = line.shifted(first).take(y.take(x.take(part.astype(np.float32), 0), 1), 2)
            found[:, :, start : start + _SLAB] = share >= 0.5
    return found


def _axes(matrix: NDArray[np.float64], shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """The source's axis that each of the target's runs along; None where the grids are oblique."""
    moves = np.abs(matrix[:3, :3]) * np.array(shape)
    along = moves.argmax(axis=0)
    moves[along, np.arange(3)] = 0
    if sorted(along.tolist()) != [0, 1, 2] or moves.max() > _STRAYING:
        return None
    return int(along[0]), int(along[1]), int(along[2])


@dataclass(frozen=True)
class _Line:
    """Linear interpolation along one axis; border voxels reach half a voxel out, beyond is nothing.

    Attributes:
        below: (n,) source voxel before each target voxel.
        above: (n,) the one after.
        lower: (n,) weight of the former.
        upper: (n,) weight of the latter.
    """

    below: NDArray[np.intp]
    above: NDArray[np.intp]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]

    @classmethod
    def of(cls, index: NDArray[np.float64], size: int) -> _Line:
        """At fractional voxel indices (n,) of an axis of `size` voxels."""
        inside = (index >= -0.5) & (index <= size - 0.5)
        clipped = np.clip(index, 0, size - 1)
        below = np.floor(clipped).astype(np.intp)
        share = clipped - below
        lower, upper = (np.where(inside, w, 0).astype(np.float32) for w in (1 - share, share))
        return cls(below, np.minimum(below + 1, size - 1), lower, upper)

    def part(self, which: slice) -> _Line:
        """Some of the target voxels."""
        return _Line(self.below[which], self.above[which], self.lower[which], self.upper[which])

    def shifted(self, first: int) -> _Line:
        """The same, of an array that begins at source voxel `first`."""
        return _Line(self.below - first, self.above - first, self.lower, self.upper)

    def take(self, values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Interpolate an array (X, Y, Z) along one of its axes."""
        shape = [-1 if a == axis else 1 for a in range(3)]
        found = values.take(self.below, axis)
        found *= self.lower.reshape(shape)
        found += values.take(self.above, axis) * self.upper.reshape(shape)
        return found
