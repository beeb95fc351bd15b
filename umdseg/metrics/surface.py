"""Distances between the surfaces of two masks, in two conventions of the field."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from umdseg.errors import unknown
from umdseg.metrics.overlap import Mask

Convention = Literal["voxel", "surfel"]
Floats = NDArray[np.float64]


def surface_scores(
    reference: Mask,
    prediction: Mask,
    spacing: Sequence[float],
    tolerance_mm: float = 2.0,
    convention: str = "voxel",
) -> dict[str, float]:
    """Normalised surface Dice, 95th percentile Hausdorff and average symmetric surface distance.

    `voxel` is MONAI's definition: the surface is the mask minus its erosion, each voxel counts
    once, the percentile is taken per direction and the larger one kept, the average runs over
    both surfaces together. `surfel` is surface-distance's (Nikolov et al., JMIR 2021): surface
    elements sit between voxels and are weighted by their area; its average is the mean of the
    two directed averages. Edges and distances of both come from MONAI, so that one distance
    computation serves all three scores.

    Args:
        reference: (X, Y, Z) bool.
        prediction: (X, Y, Z) bool.
        spacing: voxel edge lengths in millimetres.
        tolerance_mm: boundary deviation that still counts as correct.
        convention: `voxel` or `surfel`.

    Returns:
        nsd in [0, 1], hd95 and assd in millimetres. An empty reference gives NaN throughout; an
        empty prediction gives nsd 0 and NaN distances (they are infinite, and an infinite value
        would swallow every mean; Dice and nsd carry the failure).

    Raises:
        UserError: unknown convention.
    """
    if convention not in get_args(Convention):
        raise unknown("surface convention", convention, get_args(Convention))
    if not reference.any():
        return {"nsd": math.nan, "hd95": math.nan, "assd": math.nan}
    if not prediction.any():
        return {"nsd": 0.0, "hd95": math.nan, "assd": math.nan}
    subvoxel = convention == "surfel"
    to_reference, to_prediction, w_prediction, w_reference = _distances(
        reference, prediction, spacing, subvoxel
    )
    near = (w_prediction * (to_reference <= tolerance_mm)).sum() + (
        w_reference * (to_prediction <= tolerance_mm)
    ).sum()
    total = w_prediction.sum() + w_reference.sum()
    if subvoxel:
        hd95 = max(_area_percentile(to_reference, w_prediction), _area_percentile(to_prediction, w_reference))
        assd = (
            np.average(to_reference, weights=w_prediction) + np.average(to_prediction, weights=w_reference)
        ) / 2
    else:
        hd95 = max(np.percentile(to_reference, 95), np.percentile(to_prediction, 95))
        assd = np.concatenate([to_reference, to_prediction]).mean()
    return {"nsd": float(near / total), "hd95": float(hd95), "assd": float(assd)}


def _distances(
    reference: Mask, prediction: Mask, spacing: Sequence[float], subvoxel: bool
) -> tuple[Floats, Floats, Floats, Floats]:
    """Distances prediction -> reference and back (mm), and the weights of their surface elements."""
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    with warnings.catch_warnings():
        # MONAI 1.6 warns about an argument that its own function passes
        warnings.simplefilter("ignore", FutureWarning)
        edges, distances, areas = get_edge_surface_distance(
            torch.from_numpy(np.ascontiguousarray(prediction)),
            torch.from_numpy(np.ascontiguousarray(reference)),
            spacing=[float(s) for s in spacing],
            use_subvoxels=subvoxel,
            symmetric=True,
        )
    to_reference, to_prediction = (d.double().numpy() for d in distances)
    if not subvoxel:
        return to_reference, to_prediction, np.ones_like(to_reference), np.ones_like(to_prediction)
    w_prediction, w_reference = (a[e].double().numpy() for a, e in zip(areas, edges, strict=True))
    return to_reference, to_prediction, w_prediction, w_reference


def _area_percentile(distances: Floats, areas: Floats, share: float = 0.95) -> float:
    order = np.argsort(distances)
    reached = np.searchsorted(np.cumsum(areas[order]) / areas.sum(), share)
    return float(distances[order][min(int(reached), len(distances) - 1)])
