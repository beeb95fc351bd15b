"""Patches of prepared scans: where they lie, and how they are read without their volume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg.data.geometry import Grid, resample
from umdseg.data.store import CachedScan, Sliceable

Window = tuple[int, int, int]
Patch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def sample(scan: CachedScan, window: Window, rng: np.random.Generator, value: int | None = None) -> Patch:
    """Draw one patch.

    Args:
        scan: prepared scan with a label.
        window: (X, Y, Z) voxels of the patch.
        rng: decides everything.
        value: label value the patch must hold: one of its voxels is drawn and lies anywhere in the
            patch; None, or a value the scan lacks, means a patch anywhere.

    Returns:
        image (1, X, Y, Z) float32, label (1, X, Y, Z) int16, affine (4, 4) float32 from voxel index of
        the patch to patient millimetres.
    """
    indices = scan.foreground.get(value) if value is not None else None
    voxel = None if indices is None else indices[int(rng.integers(len(indices)))]
    start = place(scan.grid.shape, window, voxel, rng)
    image, label = read(scan.image, start, window), read(scan.label, start, window).astype(np.int16)
    stop = (start[0] + window[0], start[1] + window[1], start[2] + window[2])
    affine = torch.from_numpy(scan.grid.crop(start, stop).affine.astype(np.float32))
    return torch.from_numpy(image)[None], torch.from_numpy(label)[None], affine


def pick_value(
    scan: CachedScan, rng: np.random.Generator, foreground: float, weights: Mapping[int, float] | None = None
) -> int | None:
    """With probability `foreground` one of the structures present; else None (anywhere).

    Args:
        scan: prepared scan with a label.
        rng: decides everything.
        foreground: share of patches placed on a structure.
        weights: label value -> how often it is drawn against one of weight 1, 0 for never; None, or a
            value that is not named: 1.
    """
    inside = bool(rng.random() < foreground)
    share = {value: (weights or {}).get(value, 1.0) for value in sorted(scan.foreground)}
    present = [value for value, weight in share.items() if weight > 0]
    if not inside or not present:
        return None
    chances = np.array([share[value] for value in present]) if weights else None
    return int(rng.choice(present, p=None if chances is None else chances / chances.sum()))


def place(
    shape: tuple[int, int, int], window: Window, voxel: NDArray[np.int32] | None, rng: np.random.Generator
) -> tuple[int, int, int]:
    """First index of a window: inside the volume, holding `voxel` at a random position if one is given."""
    start = []
    for axis in range(3):
        last = max(shape[axis] - window[axis], 0)
        low, high = 0, last
        if voxel is not None:
            low, high = max(int(voxel[axis]) - window[axis] + 1, 0), min(int(voxel[axis]), last)
        start.append(int(rng.integers(low, high + 1)))
    return start[0], start[1], start[2]


def read(array: Sliceable, start: tuple[int, int, int], window: Window) -> NDArray[Any]:
    """Copy a window out of an array on disk; 0 where it reaches outside."""
    source, target = [], []
    for first, length, size in zip(start, window, array.shape, strict=True):
        low, high = max(first, 0), min(first + length, size)
        source.append(slice(low, max(high, low)))
        target.append(slice(low - first, max(high, low) - first))
    if all(s.stop - s.start == length for s, length in zip(source, window, strict=True)):
        return array[tuple(source)]
    patch = np.zeros(window, dtype=array.dtype)
    # a window wholly outside leaves an empty slice on one side
    if all(s.start < s.stop for s in source):
        patch[tuple(target)] = array[tuple(source)]
    return patch


def window_grid(grid: Grid, centre_mm: tuple[float, float, float], window: Window) -> Grid:
    """Grid of a window on the lattice of `grid`, centred within half a voxel of a place in millimetres."""
    centre = grid.to_index(np.array([centre_mm], dtype=np.float64))[0]
    start = np.round(centre - (np.array(window) - 1) / 2).astype(int)
    first = (int(start[0]), int(start[1]), int(start[2]))
    return grid.crop(first, (first[0] + window[0], first[1] + window[1], first[2] + window[2]))


def read_on(scan: CachedScan, target: Grid) -> Patch:
    """Read a prepared scan on `target`: resampled where the lattices differ, 0 outside.

    Returns:
        As `sample`; the label is all 0 where the scan has none.
    """
    affine = torch.from_numpy(target.affine.astype(np.float32))
    first = _whole_offset(scan.grid, target)
    if first is not None:
        image = torch.from_numpy(read(scan.image, first, target.shape))[None]
        stored = read(scan.label, first, target.shape) if scan.has_label else np.zeros(target.shape)
        return image, torch.from_numpy(stored.astype(np.int16))[None], affine
    near = scan.grid.to_index(target.to_world(target.corners()))
    low = np.floor(near.min(axis=0)).astype(int) - 1
    high = np.ceil(near.max(axis=0)).astype(int) + 2
    # stay inside the scan: what lies beyond must count as outside, not as a border to repeat
    low = np.clip(low, 0, np.array(scan.grid.shape) - 1)
    high = np.maximum(np.clip(high, 0, scan.grid.shape), low + 1)
    start = (int(low[0]), int(low[1]), int(low[2]))
    size = (int(high[0] - low[0]), int(high[1] - low[1]), int(high[2] - low[2]))
    source = scan.grid.crop(start, (int(high[0]), int(high[1]), int(high[2])))
    image = resample(torch.from_numpy(read(scan.image, start, size))[None], source, target, outside=0.0)
    stored = read(scan.label, start, size) if scan.has_label else np.zeros(size)
    label = resample(
        torch.from_numpy(stored.astype(np.int16))[None], source, target, mode="nearest", outside=0.0
    )
    return image, label, affine


def _whole_offset(grid: Grid, target: Grid) -> tuple[int, int, int] | None:
    """Index in `grid` of the first voxel of `target` if both lie on one lattice, else None."""
    index = grid.to_index(target.to_world(target.corners()))
    first = np.round(index[0]).astype(int)
    # the allowance is float noise in the affine, in voxels
    if np.abs(index - first - target.corners()).max() > 1e-3:
        return None
    return int(first[0]), int(first[1]), int(first[2])
