"""One row of scores per structure of two label maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from umdseg.errors import UserError, unknown
from umdseg.metrics.overlap import Mask, bounding_box, dice, lesion_errors
from umdseg.metrics.surface import surface_scores

if TYPE_CHECKING:
    import pandas as pd

METRICS: tuple[str, ...] = ("dice", "nsd", "hd95", "assd")
LOWER_IS_BETTER: frozenset[str] = frozenset({"hd95", "assd"})
_COLUMNS = ["structure", *METRICS, "volume_ref_ml", "volume_pred_ml", "status"]


def score_labels(
    reference: ArrayLike,
    prediction: ArrayLike,
    spacing: Sequence[float],
    structures: Mapping[int, str],
    tolerance_mm: float = 2.0,
    mask: ArrayLike | None = None,
    convention: str = "voxel",
) -> pd.DataFrame:
    """Score a predicted label map against a reference on the same grid.

    Args:
        reference: (X, Y, Z) integer labels.
        prediction: (X, Y, Z) integer labels.
        spacing: voxel edge lengths in millimetres.
        structures: label id -> name; one row each, in this order.
        tolerance_mm: tolerance of the normalised surface Dice.
        mask: (X, Y, Z), True where voxels count; both label maps are background elsewhere.
        convention: surfaces as in MONAI (`voxel`) or as in surface-distance (`surfel`).

    Returns:
        Columns structure, dice, nsd, hd95, assd (mm), volume_ref_ml, volume_pred_ml, status. A
        structure without reference voxels has status `empty_reference` and NaN scores; one
        without predicted voxels has dice 0, nsd 0 and NaN distances.

    Raises:
        UserError: shapes differ, spacing is not three positive numbers, labels are not integers,
            or the convention is unknown.
    """
    import pandas as pd

    left, right, region = _checked(reference, prediction, spacing, mask)
    rows = []
    for label, name in structures.items():
        ours, theirs = left == label, right == label
        if region is not None:
            ours, theirs = ours & region, theirs & region
        scores = score_masks(ours, theirs, spacing, tolerance_mm=tolerance_mm, convention=convention)
        rows.append({"structure": name, **scores})
    return pd.DataFrame(rows, columns=_COLUMNS)


def score_masks(
    reference: Mask,
    prediction: Mask,
    spacing: Sequence[float],
    metrics: Sequence[str] = METRICS,
    tolerance_mm: float = 2.0,
    convention: str = "voxel",
) -> dict[str, Any]:
    """Score one structure.

    Args:
        reference: (X, Y, Z) bool.
        prediction: (X, Y, Z) bool.
        spacing: voxel edge lengths in millimetres.
        metrics: which of METRICS to compute; the others are NaN (surface distances cost time).
        tolerance_mm: tolerance of the normalised surface Dice.
        convention: `voxel` or `surfel`.

    Returns:
        The METRICS, volume_ref_ml, volume_pred_ml, fn_ml and fp_ml (whole missed and invented
        components, as in autoPET), status `ok` or `empty_reference`.

    Raises:
        UserError: unknown metric or convention.
    """
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    voxel_ml = math.prod(float(s) for s in spacing) / 1000.0
    # everything below costs time in proportion to the volume, and is the same inside the union's box
    box = bounding_box(reference | prediction)
    reference, prediction = reference[box], prediction[box]
    fn_ml, fp_ml = lesion_errors(reference, prediction, voxel_ml)
    scores: dict[str, Any] = dict.fromkeys(METRICS, math.nan)
    if "dice" in metrics:
        scores["dice"] = dice(reference, prediction)
    if set(metrics) & {"nsd", "hd95", "assd"}:
        surfaces = surface_scores(reference, prediction, spacing, tolerance_mm, convention)
        scores.update({name: value for name, value in surfaces.items() if name in metrics})
    return {
        **scores,
        "volume_ref_ml": float(np.count_nonzero(reference) * voxel_ml),
        "volume_pred_ml": float(np.count_nonzero(prediction) * voxel_ml),
        "fn_ml": float(fn_ml),
        "fp_ml": float(fp_ml),
        "status": "ok" if reference.any() else "empty_reference",
    }


def _checked(
    reference: ArrayLike, prediction: ArrayLike, spacing: Sequence[float], mask: ArrayLike | None
) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]], Mask | None]:
    left, right = _integers(reference, "reference"), _integers(prediction, "prediction")
    region = None if mask is None else np.asarray(mask).astype(bool)
    for name, array in (("prediction", right), ("mask", region)):
        if array is not None and array.shape != left.shape:
            raise UserError(
                f"the {name} has another shape than the reference",
                where=array.shape,
                expected=str(left.shape),
            )
    if left.ndim != 3 or len(spacing) != 3 or not all(float(s) > 0 for s in spacing):
        raise UserError(
            "scores need 3-D label maps and three voxel edge lengths",
            where=f"shape {left.shape}, spacing {tuple(spacing)}",
            expected="(X, Y, Z) and three positive millimetres",
        )
    return left, right, region


def _integers(values: ArrayLike, name: str) -> NDArray[np.integer[Any]]:
    array = np.asarray(values)
    if array.dtype == bool:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        rounded = array.astype(np.int64)
        if not np.array_equal(rounded, array):
            raise UserError(
                f"the {name} is not an integer label map", where=str(array.dtype), expected="integers"
            )
        return rounded
    return array
