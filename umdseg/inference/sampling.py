"""Linear resampling onto scan grids, fast where the axes are parallel."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg.data.geometry import Grid, resample


def sample(values: torch.Tensor, source: Grid, target: Grid, outside: float) -> torch.Tensor:
    """Trilinear resampling, equal to `umdseg.data.geometry.resample`.

    Scans are mostly stored along the patient's axes, flipped or permuted; there, trilinear
    interpolation is three small matrix products, ten times faster on CPUs than sampling by points.

    Args:
        values: (C, X, Y, Z) float32 on `source`.
        source: grid of `values`.
        target: wanted grid.
        outside: value beyond the source's field of view.

    Returns:
        (C, *target.shape); shares memory with `values` where the target is a part of the source.
    """
    values, source = crop_to(values, source, target)
    if source.same_as(target, tolerance_mm=1e-4):
        return values
    matrix = np.linalg.inv(source.affine) @ target.affine
    axes = _parallel(matrix[:3, :3] * np.array(target.shape), tolerance=1e-3)
    if axes is None:
        return resample(values, source, target, outside=outside, slab=target.shape[2])
    # target axis t runs along source axis axes[t]
    out = (values - outside).permute(0, *(1 + a for a in axes))
    # the smallest growth first keeps the intermediate arrays small
    growth = [target.shape[t] / source.shape[a] for t, a in enumerate(axes)]
    for t in sorted(range(3), key=lambda t: growth[t]):
        a = axes[t]
        index = matrix[a, t] * np.arange(target.shape[t]) + matrix[a, 3]
        out = _along(out, t + 1, _weights(index, source.shape[a]))
    return out.add_(outside)


def crop_to(values: torch.Tensor, source: Grid, target: Grid) -> tuple[torch.Tensor, Grid]:
    """The part of (C, X, Y, Z) that sampling on `target` needs, as a view, and its grid."""
    index = source.to_index(target.to_world(target.corners()))
    start = np.round(index.min(axis=0)).astype(int)
    part = source.crop(_shape(start), _shape(start + target.shape))
    inside = (start >= 0).all() and (start + target.shape <= source.shape).all()
    if not (inside and part.same_as(target, tolerance_mm=1e-4)):
        size = np.array(source.shape)
        start = np.clip(np.floor(index.min(axis=0)) - 1, 0, size - 1).astype(int)
        stop = np.clip(np.ceil(index.max(axis=0)) + 2, start + 1, size).astype(int)
        part = source.crop(_shape(start), _shape(stop))
    place = tuple(slice(a, a + n) for a, n in zip(start.tolist(), part.shape, strict=True))
    return values[(slice(None), *place)], part


def _shape(index: NDArray[np.int_]) -> tuple[int, int, int]:
    return int(index[0]), int(index[1]), int(index[2])


def _parallel(matrix: NDArray[np.float64], tolerance: float) -> tuple[int, int, int] | None:
    """Which source axis each target axis follows; None where one strays by more than `tolerance` voxels."""
    size = np.abs(matrix)
    axes = size.argmax(axis=0)
    if len(set(axes.tolist())) < 3:
        return None
    rest = size.copy()
    rest[axes, np.arange(3)] = 0
    return (int(axes[0]), int(axes[1]), int(axes[2])) if rest.max() <= tolerance else None


def _weights(index: NDArray[np.float64], size: int) -> torch.Tensor:
    """(len(index), size) interpolation weights; the border voxel reaches half a voxel out, then zeros."""
    inside = (index >= -0.5) & (index <= size - 0.5)
    held = np.clip(index, 0, size - 1)
    low = np.minimum(np.floor(held).astype(int), max(size - 2, 0))
    share = held - low
    weights = np.zeros((len(index), size), dtype=np.float32)
    rows = np.arange(len(index))
    weights[rows, low] = (1 - share) * inside
    weights[rows, np.minimum(low + 1, size - 1)] += share * inside
    return torch.from_numpy(weights)


def _along(values: torch.Tensor, axis: int, weights: torch.Tensor) -> torch.Tensor:
    if axis == 3:
        return values @ weights.T
    if axis == 2:
        return weights @ values
    flat = values.reshape(*values.shape[:2], -1)
    return (weights @ flat).reshape(values.shape[0], -1, *values.shape[2:])
