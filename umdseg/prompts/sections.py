"""The slice of a structure that a person would draw on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from umdseg.data.geometry import Array, Grid
from umdseg.vocabulary import Millimetres


@dataclass(frozen=True)
class Section:
    """One connected piece of a structure on one slice of a grid.

    Attributes:
        mask: (A, B) pixels of the piece, in the smallest rectangle that holds it.
        start: index of the rectangle's first voxel in the grid.
        axis: of the grid, across the slice; A and B are the other two in order.
        grid: the place.
    """

    mask: NDArray[np.bool_]
    start: tuple[int, int, int]
    axis: int
    grid: Grid

    @property
    def spacing(self) -> tuple[float, float]:
        """Millimetres between pixels along A and B."""
        first, second = (self.grid.spacing[axis] for axis in range(3) if axis != self.axis)
        return first, second

    def to_world(self, pixels: Array) -> tuple[Millimetres, ...]:
        """(N, 2) fractional pixel indices of `mask` -> patient millimetres."""
        index = np.insert(np.asarray(pixels, dtype=np.float64), self.axis, 0.0, axis=1) + self.start
        return tuple((float(x), float(y), float(z)) for x, y, z in self.grid.to_world(index))


def largest_section(mask: NDArray[np.bool_], grid: Grid) -> Section | None:
    """The largest connected piece (8 neighbours) of a mask on any one of its axial slices.

    Slices are those of the grid that are nearest to axial. Of pieces alike the first in index order is taken.

    Args:
        mask: (X, Y, Z).
        grid: its place.

    Returns:
        The piece; None where the mask is empty.
    """
    if not mask.any():
        return None
    axis = int(np.argmax(np.abs(grid.affine[2, :3]) / np.array(grid.spacing)))
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    beside = np.zeros((3, 3, 3), dtype=bool)
    beside[tuple(1 if one == axis else slice(None) for one in range(3))] = True
    pieces, _ = ndimage.label(mask[box], beside)
    value = int(np.argmax(np.bincount(pieces.ravel())[1:])) + 1
    inner = ndimage.find_objects(pieces, value)[value - 1]
    piece = (pieces[inner] == value).squeeze(axis)
    x, y, z = (int(outer.start + own.start) for outer, own in zip(box, inner, strict=True))
    return Section(piece, (x, y, z), axis, grid)
