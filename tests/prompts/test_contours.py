"""Contours that mark nothing anywhere are refused with their reason."""

from __future__ import annotations

import numpy as np
import pytest

from umdseg.errors import UserError
from umdseg.prompts.contours import check_contour, plane_of
from umdseg.vocabulary import Contour

SQUARE = ((0.0, 0.0, 7.0), (10.0, 0.0, 7.0), (10.0, 10.0, 7.0), (0.0, 10.0, 7.0))


def test_a_plane_in_any_direction_is_found() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    flat = np.random.default_rng(5).uniform(-40, 40, (30, 3)) * (1, 1, 0)
    middle, normal = plane_of(flat @ turn.T + (300, -20, 900))
    assert abs(abs(normal @ turn[:, 2]) - 1) < 1e-9
    np.testing.assert_allclose(middle, flat.mean(axis=0) @ turn.T + (300, -20, 900))


@pytest.mark.parametrize(
    ("contour", "message"),
    [
        (Contour(SQUARE[:2]), "lasso of liver has 2 points"),
        (Contour((), closed=False), "scribble of liver has 0 points"),
        (Contour(SQUARE, sign=-1), "sign -1"),
        (Contour((*SQUARE, (0.0, float("nan"), 7.0))), "no places"),
        # the diagonal corners 4 mm up: the best plane is 2 mm off all four
        (Contour((SQUARE[0], (10, 0, 11), SQUARE[2], (0, 10, 11))), r"in no plane: a point is 2\.0 mm"),
        (Contour(((0, 0, 0), (5, 5, 5), (9, 9, 9))), "on one line"),
    ],
)
def test_contours_that_mark_nothing_are_refused(contour: Contour, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_contour(contour, "liver")


def test_contours_that_mark_something_are_not() -> None:
    check_contour(Contour(SQUARE), "liver")
    # written down to a tenth of a millimetre
    check_contour(Contour(tuple((x, y, z + 0.05 * (x > 5)) for x, y, z in SQUARE)), "liver")
    check_contour(Contour(SQUARE[:1], closed=False), "liver")
    check_contour(Contour((*SQUARE[:3], (0.0, 10.0, 90.0)), closed=False), "liver")
