"""Where a person would click: the deepest place of a structure, and simulated clicks for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from umdseg.data.geometry import Grid, resample
from umdseg.vocabulary import Millimetres, Prompt

Mask = NDArray[np.bool_]


def first_click(masks: Sequence[tuple[Mask, Grid]], reference: Grid) -> Millimetres | None:
    """The first click on a structure, one place for all modalities of a subject.

    The voxel of the reference grid that lies deepest (Euclidean distance in millimetres to the
    outside) in the intersection of all masks; the field's edge counts as outside. Of voxels alike the
    first in index order is taken.

    Args:
        masks: (X, Y, Z) mask and its grid, one per scan of the subject.
        reference: grid the intersection is taken on.

    Returns:
        Patient millimetres (RAS+), or None where the masks have nothing in common (callers then click
        on the reference modality's own mask, and say so).
    """
    box = _common_box(masks, reference)
    if box is None:
        return None
    start, part = box
    common = np.ones(part.shape, dtype=bool)
    for mask, grid in masks:
        common &= _on(mask, grid, part)
    if not common.any():
        return None
    voxel = np.unravel_index(int(np.argmax(_depth(common, part.spacing))), part.shape)
    index = np.array([start]) + np.array([voxel])
    x, y, z = reference.to_world(index.astype(np.float64))[0]
    return float(x), float(y), float(z)


def sample_clicks(
    label: torch.Tensor | NDArray[np.integer],
    value: int,
    affine: torch.Tensor | NDArray[np.floating],
    rng: np.random.Generator,
    structure: str,
    positives: int = 3,
    negatives: int = 2,
) -> Prompt | None:
    """Random clicks on one structure of a training patch.

    1 to `positives` clicks inside, the first in the deeper half of the structure (evaluation clicks at
    its deepest place), the others anywhere in it; 0 to `negatives` clicks on voxels around it.

    Args:
        label: (X, Y, Z) label patch.
        value: label value of the structure.
        affine: (4, 4) voxel index of the patch -> patient millimetres.
        rng: decides everything.
        structure: canonical name.
        positives: most clicks inside.
        negatives: most clicks outside.

    Returns:
        A prompt with points in patient millimetres, or None where the patch lacks the structure.
    """
    mask = np.asarray(label) == value
    if not mask.any():
        return None
    matrix = np.asarray(affine, dtype=np.float64)
    spacing = tuple(float(s) for s in np.linalg.norm(matrix[:3, :3], axis=0))
    part, offset = _near(mask, margin=5)
    depth = _depth(part, spacing)
    first = _draw(np.argwhere(depth >= depth.max() / 2), 1, rng)
    inside = _draw(np.argwhere(part), int(rng.integers(0, positives)), rng)
    outside = _draw(np.argwhere(~part), int(rng.integers(0, negatives + 1)), rng)
    index = np.concatenate([first, inside, outside]) + offset
    world = index @ matrix[:3, :3].T + matrix[:3, 3]
    points = tuple((float(x), float(y), float(z)) for x, y, z in world)
    signs = (1,) * (1 + len(inside)) + (0,) * len(outside)
    return Prompt(structure, "point" if len(points) == 1 else "clicks", points, signs)


def _depth(mask: Mask, spacing: Sequence[float]) -> NDArray[np.float64]:
    padded = np.pad(mask, 1)
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(padded, sampling=spacing)
    return depth[1:-1, 1:-1, 1:-1]


def _draw(candidates: NDArray[np.intp], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    if len(candidates) == 0:
        return candidates
    return candidates[rng.choice(len(candidates), size=min(count, len(candidates)), replace=False)]


def _near(mask: Mask, margin: int) -> tuple[Mask, NDArray[np.intp]]:
    where = np.argwhere(mask)
    low = np.maximum(where.min(axis=0) - margin, 0)
    high = np.minimum(where.max(axis=0) + 1 + margin, mask.shape)
    return mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], low


def _common_box(
    masks: Sequence[tuple[Mask, Grid]], reference: Grid
) -> tuple[tuple[int, int, int], Grid] | None:
    """First index and grid of the reference's part that holds the intersection of all masks."""
    low, high = np.zeros(3, dtype=int), np.array(reference.shape)
    for mask, grid in masks:
        where = np.nonzero(mask)
        if len(where[0]) == 0:
            return None
        ends = [(w.min() - 0.5, w.max() + 0.5) for w in where]
        faces = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1).T
        index = reference.to_index(grid.to_world(faces))
        low = np.maximum(low, np.floor(index.min(axis=0)).astype(int))
        high = np.minimum(high, np.ceil(index.max(axis=0)).astype(int) + 1)
    if (low >= high).any():
        return None
    start = (int(low[0]), int(low[1]), int(low[2]))
    return start, reference.crop(start, (int(high[0]), int(high[1]), int(high[2])))


def _on(mask: Mask, grid: Grid, target: Grid) -> Mask:
    own, offset = _near(mask, margin=1)
    start = (int(offset[0]), int(offset[1]), int(offset[2]))
    stop = (start[0] + own.shape[0], start[1] + own.shape[1], start[2] + own.shape[2])
    values = torch.from_numpy(own.astype(np.float32))[None]
    moved = resample(values, grid.crop(start, stop), target, mode="nearest", outside=0.0)
    return np.asarray(moved[0].numpy() > 0.5)
