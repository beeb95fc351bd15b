"""Boxes around structures, in patient millimetres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid
from umdseg.vocabulary import Millimetres

Box = tuple[Millimetres, Millimetres]


def tight_box(mask: NDArray[np.bool_], grid: Grid) -> Box | None:
    """The smallest box along the patient's axes that holds all voxels of a mask, faces included.

    Args:
        mask: (X, Y, Z).
        grid: its place.

    Returns:
        Lower and upper corner in patient millimetres (RAS+); None where the mask is empty.
    """
    index = np.argwhere(mask)
    if not len(index):
        return None
    centres = grid.to_world(index.astype(np.float64))
    # how far a voxel reaches from its centre along each of the patient's axes
    half = np.abs(grid.affine[:3, :3]).sum(axis=1) / 2
    return _box(centres.min(axis=0) - half, centres.max(axis=0) + half)


def loosened(box: Box, margin_mm: float, jitter_mm: float, rng: np.random.Generator) -> Box:
    """A box as a person would draw it: every face moved outwards and then at random.

    Args:
        box: lower and upper corner.
        margin_mm: outwards.
        jitter_mm: each face moves by up to this, either way; by no more than a quarter of the box's edge, so
            that a box remains.
        rng: decides everything.
    """
    low, high = np.array(box[0]) - margin_mm, np.array(box[1]) + margin_mm
    most = np.minimum(jitter_mm, (high - low) / 4)
    return _box(low + rng.uniform(-1, 1, 3) * most, high + rng.uniform(-1, 1, 3) * most)


def _box(low: NDArray[np.float64], high: NDArray[np.float64]) -> Box:
    (a, b, c), (d, e, f) = low.tolist(), high.tolist()
    return (a, b, c), (d, e, f)
