"""Lassos and scribbles drawn from masks, against areas and lengths known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from umdseg.data.geometry import Grid
from umdseg.prompts.contours import check_contour
from umdseg.prompts.outline import lasso_around
from umdseg.prompts.raster import mark
from umdseg.prompts.sections import largest_section
from umdseg.prompts.stroke import scribble_inside

RNG = np.random.default_rng(0)
# x runs to the left; axial slices are across the second axis
PLACE = Grid((50, 6, 44), np.array([[-2.0, 0, 0, 60], [0, 0, 2.0, -30], [0, 5.0, 0, 100], [0, 0, 0, 1]]))


def block(low, high) -> np.ndarray:
    mask = np.zeros(PLACE.shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def disc(radius_mm, middle=(24, 21), level=3) -> np.ndarray:
    mask = np.zeros(PLACE.shape, dtype=bool)
    x, z = np.ogrid[: PLACE.shape[0], : PLACE.shape[2]]
    mask[:, level] = np.hypot(2 * (x - middle[0]), 2 * (z - middle[1])) < radius_mm
    return mask


def plane(contour) -> np.ndarray:
    """(N, 2) x and y of a contour on one axial plane."""
    points = np.array(contour.points)
    assert np.ptp(points[:, 2]) < 1e-9
    return points[:, :2]


def area(contour) -> float:
    (x, y), (u, v) = plane(contour).T, np.roll(plane(contour), -1, axis=0).T
    return abs(float((x * v - u * y).sum())) / 2


def test_the_largest_piece_of_any_slice_is_taken() -> None:
    mask = block((2, 1, 2), (12, 2, 12))  # 100 pixels
    mask |= block((20, 4, 5), (31, 5, 15))  # 110 pixels
    mask |= block((2, 4, 20), (11, 5, 29))  # 81 more on the same slice, apart
    mask |= block((31, 4, 15), (32, 5, 16))  # touches the second at a corner
    section = largest_section(mask, PLACE)
    assert (section.axis, section.start, int(section.mask.sum())) == (1, (20, 4, 5), 111)
    assert section.spacing == (2.0, 2.0)
    assert section.to_world(np.array([[0.0, 0.0]])) == ((20.0, -20.0, 120.0),)
    assert largest_section(np.zeros(PLACE.shape, bool), PLACE) is None


@pytest.mark.parametrize("margin", [0.0, 3.0, 7.5])
def test_a_lasso_runs_at_the_margin_outside_the_outermost_faces(margin) -> None:
    """Steiner: a rectangle of a x b grown by m covers ab + 2m(a + b) + pi m^2."""
    a, b = 40.0, 24.0
    contour = lasso_around(largest_section(block((10, 2, 8), (30, 3, 20)), PLACE), margin, 0.0, RNG)
    check_contour(contour, "block")
    points = plane(contour)
    # voxels 10 to 29 from x = 41 down to 1, 8 to 19 from y = -15 to 9; z = 110
    np.testing.assert_allclose(points.min(axis=0), (1 - margin, -15 - margin), atol=0.15)
    np.testing.assert_allclose(points.max(axis=0), (41 + margin, 9 + margin), atol=0.15)
    assert contour.points[0][2] == 110.0
    assert area(contour) == pytest.approx(a * b + 2 * margin * (a + b) + np.pi * margin**2, rel=0.01)


@pytest.mark.parametrize("radius", [9.0, 21.0])
def test_round_structures_have_round_lassos(radius) -> None:
    """Corners of the outermost pixels lie up to half a diagonal, 1.4 mm, outside the disc of centres."""
    contour = lasso_around(largest_section(disc(radius), PLACE), 4.0, 0.0, RNG)
    radii = np.linalg.norm(plane(contour) - (60.0 - 48, -30.0 + 42), axis=1)
    assert radius + 4 - 2**0.5 < radii.min() < radii.max() < radius + 4 + 2**0.5 + 0.1
    assert np.pi * (radius + 4) ** 2 < area(contour) < np.pi * (radius + 4 + 2**0.5) ** 2


def test_on_its_own_grid_a_tight_lasso_marks_the_section_and_its_holes() -> None:
    mask = disc(25.0) & ~disc(9.0, middle=(27, 24))
    mask |= block((22, 3, 30), (26, 4, 40))
    contour = lasso_around(largest_section(mask, PLACE), 0.0, 0.0, RNG)
    marked = mark(contour, PLACE, (1.0, 1.0, 1.0))
    found = np.zeros(PLACE.shape, dtype=bool)
    found[tuple(slice(a, b) for a, b in zip(marked.start, marked.stop, strict=True))] = marked.mask
    assert np.array_equal(found, mask | disc(9.0, middle=(27, 24)))


def test_jitter_moves_the_line_by_no_more_than_asked_and_repeats() -> None:
    section = largest_section(disc(20.0), PLACE)
    middle = np.array([60.0 - 48, -30.0 + 42])
    reached = []
    for seed in range(30):
        contour = lasso_around(section, 5.0, 3.0, np.random.default_rng(seed))
        radii = np.linalg.norm(plane(contour) - middle, axis=1)
        reached += [radii.min() - 25, radii.max() - 25]
        assert contour == lasso_around(section, 5.0, 3.0, np.random.default_rng(seed))
    # pixels of 2 mm make the disc itself uneven by 1 mm
    assert -4.2 < min(reached) < -2.0
    assert 2.0 < max(reached) < 4.2


def test_a_lasso_remains_however_much_it_wanders() -> None:
    section = largest_section(block((10, 2, 8), (14, 3, 11)), PLACE)
    for seed in range(20):
        assert area(lasso_around(section, 0.0, 50.0, np.random.default_rng(seed))) > 0


def test_a_scribble_runs_along_the_middle_of_a_bar() -> None:
    """Of a bar of 70 x 10 mm, the inner part begins half as deep as its middle."""
    section = largest_section(block((5, 1, 20), (40, 2, 25)), PLACE)
    contour = scribble_inside(section)
    points = plane(contour)
    assert not contour.closed
    # row 22 of the bar's 20 to 24
    inner = points[(points[:, 0] > -9) & (points[:, 0] < 41)]
    assert (inner[:, 1] == -30 + 2 * 22).all()
    assert 60 <= np.ptp(points[:, 0]) <= 70
    assert np.linalg.norm(np.diff(points, axis=0), axis=1).sum() < 70


def test_a_scribble_crosses_a_disc_through_its_middle() -> None:
    points = plane(scribble_inside(largest_section(disc(21.0), PLACE)))
    middle = np.array([60.0 - 48, -30.0 + 42])
    radii = np.linalg.norm(points - middle, axis=1)
    # half as deep as the middle: half the radius, to a pixel
    assert radii.max() <= 21 / 2 + 2.1
    assert np.linalg.norm(points[0] - points[-1]) >= 21 - 4.1
    assert radii.min() <= 2.1


def test_a_scribble_follows_a_bend_and_stays_inside() -> None:
    ring = disc(38.0) & ~disc(24.0)
    ring[24:, :, 18:24] = False
    section = largest_section(ring, PLACE)
    contour = scribble_inside(section)
    index = np.rint(PLACE.to_index(np.array(contour.points))).astype(int)
    assert ring[tuple(index.T)].all()
    radii = np.linalg.norm(plane(contour) - (60.0 - 48, -30.0 + 42), axis=1)
    assert np.abs(radii[8:-8] - 31).max() <= 3
    # most of the way round at 31 mm
    assert np.linalg.norm(np.diff(plane(contour), axis=0), axis=1).sum() > 0.75 * 2 * np.pi * 31


@pytest.mark.parametrize("voxels", [1, 2, 9])
def test_thin_structures_are_drawn_too(voxels) -> None:
    section = largest_section(block((4, 0, 7), (4 + voxels, 1, 8)), PLACE)
    scribble = scribble_inside(section)
    assert len(scribble.points) == voxels
    check_contour(scribble, "line")
    assert area(lasso_around(section, 0.0, 0.0, RNG)) == pytest.approx(4.0 * voxels, rel=0.1)
