"""What a lasso or scribble has to be before it marks any voxels."""

from __future__ import annotations

import numpy as np

from umdseg.data.geometry import GRID_TOLERANCE_MM, Array
from umdseg.errors import UserError
from umdseg.vocabulary import Contour

LEAST_POINTS = {"lasso": 3, "scribble": 1}


def plane_of(points: Array) -> tuple[Array, Array]:
    """The plane that fits points best.

    Args:
        points: (N, 3) in patient millimetres.

    Returns:
        Their mean (3,) and the plane's unit normal (3,).
    """
    middle = points.mean(axis=0)
    return middle, np.linalg.svd(points - middle)[2][-1]


def check_contour(contour: Contour, structure: str) -> None:
    """Refuse a contour that marks nothing anywhere.

    Args:
        contour: lasso or scribble.
        structure: named in the error.

    Raises:
        UserError: too few points, coordinates that are no numbers, a sign other than 0 and 1, a lasso whose
            points lie in no plane (farther than 0.1 mm from the best one) or on one line.
    """
    name = f"the {contour.kind} of {structure}"
    least = LEAST_POINTS[contour.kind]
    if len(contour.points) < least:
        raise UserError(f"{name} has {len(contour.points)} points", expected=f"{least} or more")
    if contour.sign not in (0, 1):
        expected = "1 (the structure) or 0 (what is not it)"
        raise UserError(f"{name} has the sign {contour.sign}", expected=expected)
    points = np.array(contour.points, dtype=np.float64)
    if points.shape[1:] != (3,) or not np.isfinite(points).all():
        raise UserError(f"{name} has points that are no places", expected="x, y, z in patient millimetres")
    if contour.closed:
        _check_plane(points, name)


def _check_plane(points: Array, name: str) -> None:
    middle, normal = plane_of(points)
    off = float(np.abs((points - middle) @ normal).max())
    if off > GRID_TOLERANCE_MM:
        raise UserError(
            f"{name} lies in no plane: a point is {off:.1f} mm off the one that fits best",
            expected=f"points within {GRID_TOLERANCE_MM} mm of one plane, in any direction",
        )
    # what is left across the longest direction
    if np.linalg.svd(points - middle, compute_uv=False)[1] < 1e-3:
        raise UserError(f"{name} surrounds nothing: its points lie on one line", expected="a closed outline")
