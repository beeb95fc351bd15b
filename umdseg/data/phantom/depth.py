"""Distances inside and around the organs of a label map, on a coarse grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from umdseg.data.geometry import Grid
from umdseg.data.phantom.labelmap import LabelMap
from umdseg.data.phantom.shapes import Floats


@dataclass(frozen=True)
class Organ:
    """Where one organ of the map lies and how deep its voxels are (mm, on a coarse grid)."""

    name: str
    origin: NDArray[np.float64]
    spacing: NDArray[np.float64]
    depth: Floats
    centre: NDArray[np.float64]
    size: float
    front: float
    back: float


@dataclass(frozen=True)
class Around:
    """Distance (mm) to an organ on a coarse grid around it."""

    grid: Grid
    distance: Floats

    def at(self, position: Floats) -> Floats:
        """(3, X, Y, Z) positions -> (X, Y, Z) distances; far away the farthest known."""
        out = np.full(position.shape[1:], self.distance.max(), dtype=np.float32)
        low, high = self.grid.to_world(self.grid.corners())[[0, -1]]
        near = np.ones(position.shape[1:], dtype=bool)
        for axis in range(3):
            # coarse voxels reach half a step further, at the map's upper end up to one
            step = self.grid.spacing[axis]
            near &= (position[axis] >= low[axis] - step) & (position[axis] <= high[axis] + step)
        index = self.grid.to_index(np.stack([position[a][near] for a in range(3)], axis=1)).T
        out[near] = ndimage.map_coordinates(self.distance, index, order=1, mode="nearest", output=np.float32)
        return out


def find_organ(small: LabelMap, name: str, number: int) -> Organ | None:
    """One organ of a coarse map; None where the map lacks it."""
    mask = small.array == number
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return None
    low = np.array([max(s.start - 1, 0) for s in boxes[0]])
    high = np.array([min(s.stop + 1, n) for s, n in zip(boxes[0], mask.shape, strict=True)])
    part = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    spacing = np.asarray(small.grid.spacing)
    # the surface lies half a voxel before the first voxel outside
    depth = np.clip(ndimage.distance_transform_edt(part, spacing) - spacing.min() / 2, 0, None)
    origin = small.grid.to_world(low[None].astype(float))[0]
    points = np.argwhere(part) * spacing + origin
    volume = len(points) * small.grid.voxel_ml * 1000
    back, front = np.percentile(points[:, 1], [1, 99])
    return Organ(
        name=name,
        origin=origin,
        spacing=spacing,
        depth=depth.astype(np.float32),
        centre=points.mean(axis=0),
        size=float((3 * volume / (4 * np.pi)) ** (1 / 3)),
        front=float(front),
        back=float(back),
    )


def distance_around(small: LabelMap, number: int | None, margin_mm: float = 27.0) -> Around | None:
    """Distance to one organ up to a margin; None where the map lacks it."""
    boxes = ndimage.find_objects((small.array == number).astype(np.uint8)) if number else []
    if not boxes:
        return None
    margin = np.ceil(margin_mm / np.asarray(small.grid.spacing)).astype(int)
    start = np.array([s.start for s in boxes[0]]) - margin
    stop = np.array([s.stop for s in boxes[0]]) + margin
    low, high = np.maximum(start, 0), np.minimum(stop, small.array.shape)
    mask = small.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] == number
    spacing = np.asarray(small.grid.spacing)
    distance = np.clip(ndimage.distance_transform_edt(~mask, spacing) - spacing.min() / 2, 0, None)
    grid = small.grid.crop(tuple(low), tuple(high))
    return Around(grid, distance.astype(np.float32))
