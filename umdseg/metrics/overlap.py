"""Overlap of two masks, and the volumes of whole missed and whole invented components."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def bounding_box(mask: Mask) -> tuple[slice, slice, slice]:
    """Where a mask (X, Y, Z) has voxels; empty slices where it has none."""
    ends = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0))
    return ends[0], ends[1], ends[2]


def dice(reference: Mask, prediction: Mask) -> float:
    """Dice similarity coefficient 2|A n B| / (|A| + |B|) (Dice, Ecology 1945).

    Args:
        reference: (X, Y, Z) bool.
        prediction: (X, Y, Z) bool.

    Returns:
        Value in [0, 1]; NaN when the reference is empty, because there is nothing to find.
    """
    size = int(np.count_nonzero(reference))
    if size == 0:
        return math.nan
    both = int(np.count_nonzero(reference & prediction))
    return 2.0 * both / (size + int(np.count_nonzero(prediction)))


def lesion_errors(reference: Mask, prediction: Mask, voxel_ml: float) -> tuple[float, float]:
    """False negative and false positive volume as the autoPET challenge counts them.

    A reference component that the prediction does not touch at all is missed as a whole; a
    predicted component that touches no reference is invented as a whole. Components are
    18-connected (Gatidis et al., Nature Machine Intelligence 2024).

    Args:
        reference: (X, Y, Z) bool.
        prediction: (X, Y, Z) bool.
        voxel_ml: volume of one voxel in millilitres.

    Returns:
        Missed and invented volume in millilitres.
    """
    return _untouched(reference, prediction) * voxel_ml, _untouched(prediction, reference) * voxel_ml


def _untouched(components: Mask, other: Mask) -> int:
    from scipy import ndimage

    # outside their box there is nothing to label: a reference is small where a bad prediction is scattered
    box = bounding_box(components)
    components, other = components[box], other[box]
    labelled, count = ndimage.label(components, ndimage.generate_binary_structure(3, 2))
    sizes = np.bincount(labelled[components], minlength=count + 1)
    touched = np.bincount(labelled[components & other], minlength=count + 1) > 0
    return int(sizes[~touched].sum())
