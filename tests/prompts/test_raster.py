"""Lassos and scribbles on grids that lie in any way, against geometry worked out in patient space."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from umdseg.data.geometry import Grid
from umdseg.prompts.raster import mark
from umdseg.vocabulary import Contour

SHAPE = (26, 22, 18)
THIN = (1.0, 1.0, 1.0)


def grid(spacing, flips=(1, 1, 1), order=(0, 1, 2), degrees=0.0) -> Grid:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = (turn @ tilt)[:, list(order)] @ np.diag(np.array(flips) * spacing)
    affine[:3, 3] = (37.0, -112.0, 410.0)
    return Grid(SHAPE, affine)


GRIDS = {
    "anisotropic": grid((0.8, 1.1, 4.0)),
    "flipped": grid((1.5, 1.5, 3.0), flips=(-1, -1, 1)),
    "permuted": grid((1.0, 2.0, 1.5), order=(2, 0, 1), flips=(1, -1, 1)),
    "oblique": grid((0.9, 1.3, 2.5), flips=(-1, 1, -1), degrees=25),
}


def whole(contour, where, thickness=THIN):
    """(X, Y, Z) of everything that is marked."""
    out = np.zeros(where.shape, dtype=bool)
    marked = mark(contour, where, thickness)
    if marked is not None:
        assert marked.mask.any(axis=(1, 2))[[0, -1]].all()
        out[tuple(slice(a, b) for a, b in zip(marked.start, marked.stop, strict=True))] = marked.mask
    return out


def centres(where):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in where.shape], indexing="ij"), -1).reshape(-1, 3)
    return index, where.to_world(index.astype(float))


def plane_basis(normal):
    normal = np.asarray(normal, float) / np.linalg.norm(normal)
    first = np.cross(normal, [1, 0, 0] if abs(normal[0]) < 0.9 else [0, 1, 0])
    first /= np.linalg.norm(first)
    return first, np.cross(normal, first), normal


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("normal", [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0.3, -0.5, 0.8)])
def test_a_lasso_marks_the_voxels_whose_way_to_its_plane_it_surrounds(name, normal) -> None:
    """A concave star in a plane of the patient; points are moved onto the plane and looked up there."""
    where = GRIDS[name]
    first, second, normal = plane_basis(normal)
    middle = where.to_world(np.array([(np.array(SHAPE) - 1) / 2 + (0.21, -0.13, 0.17)]))[0]
    angles = np.arange(14) * 2 * np.pi / 14 + 0.1
    radii = np.where(np.arange(14) % 2, 5.0, 12.0)
    star = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
    points = tuple(map(tuple, middle + star @ np.stack([first, second])))
    # the grid's axis that meets the plane most steeply, in voxels
    steps = where.affine[:3, :3].T @ normal
    axis = where.affine[:3, int(np.argmax(np.abs(steps)))]
    index, world = centres(where)
    share = (middle - world) @ normal / (axis @ normal)
    landed = world + share[:, None] * axis - middle
    inside = Polygon(star).contains_points(np.stack([landed @ first, landed @ second], 1))
    expected = (np.abs(share) < 0.5) & inside
    assert expected.sum() > 20
    # on the line and midway between slices rounding decides, to a thousandth of a voxel
    sure = (np.abs(np.abs(share) - 0.5) > 2e-3) & (to_edges(landed @ first, landed @ second, star) > 6e-3)
    assert sure[expected].mean() > 0.9
    found = whole(Contour(points), where)[tuple(index.T)]
    assert np.array_equal(found[sure], expected[sure])


def to_edges(x, y, corners):
    """Distance of points to the nearest edge of a polygon."""
    nearest = np.full(len(x), np.inf)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        way = np.stack([x, y], 1) - a
        share = np.clip(way @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(way - share[:, None] * (b - a), axis=1))
    return nearest


def test_a_lasso_along_the_grid_is_on_the_nearest_slice_alone() -> None:
    where = GRIDS["flipped"]
    corners = np.array([[4, 3, 7.4], [12, 3, 7.4], [12, 9, 7.4], [4, 9, 7.4]])
    found = np.argwhere(whole(Contour(tuple(map(tuple, where.to_world(corners)))), where))
    assert found.min(axis=0).tolist() == [4, 3, 7]
    assert found.max(axis=0).tolist() == [12, 9, 7]
    assert len(found) == 9 * 7


def test_midway_between_slices_a_lasso_stays_in_one_piece() -> None:
    where = GRIDS["oblique"]
    corners = np.array([[4, 3, 7.5], [20, 3, 7.5], [20, 9, 7.5], [4, 9, 7.5]])
    contour = Contour(tuple(map(tuple, where.to_world(corners))))
    for affine in (where.affine, where.affine.astype(np.float32).astype(np.float64)):
        assert len(set(np.argwhere(whole(contour, Grid(SHAPE, affine)))[:, 2])) == 1


def test_a_lasso_between_all_centres_marks_its_line() -> None:
    where = Grid(SHAPE, np.diag([4.0, 4.0, 4.0, 1.0]))
    sliver = ((8.0, 9.0, 12.0), (40.0, 9.0, 12.0), (40.0, 10.0, 12.0), (8.0, 10.0, 12.0))
    expected = {(x, y, 3) for x in range(2, 11) for y in (2,)}
    assert expected <= set(map(tuple, np.argwhere(whole(Contour(sliver), where))))
    dot = ((9.0, 9.0, 12.0), (9.5, 9.0, 12.0), (9.5, 9.5, 12.0))
    assert np.argwhere(whole(Contour(dot), where)).tolist() == [[2, 2, 3]]


def test_what_lies_outside_is_left_out() -> None:
    where = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    # faces of the first voxels are at -1 mm
    across = ((-30.0, -30.0, 8.0), (9.0, -30.0, 8.0), (9.0, 5.0, 8.0), (-30.0, 5.0, 8.0))
    assert np.argwhere(whole(Contour(across), where)).max(axis=0).tolist() == [4, 2, 4]
    assert whole(Contour(across), where).sum() == 5 * 3
    for z in (-1.2, 2 * 17 + 1.2, 900.0):
        assert mark(Contour(tuple((x, y, z) for x, y, _ in across)), where, THIN) is None
    assert mark(Contour(((900.0, 0, 0), (901.0, 0, 0)), closed=False), where, THIN) is None
    crossing = whole(Contour(((-40.0, 6.0, 10.0), (90.0, 6.0, 10.0)), closed=False), where)
    assert np.array_equal(np.argwhere(crossing), [[x, 3, 5] for x in range(SHAPE[0])])


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("thickness", [1.0, 2.0, 3.0])
def test_a_scribble_marks_a_band_on_its_slice(name, thickness) -> None:
    """In voxels of slice 6 across the second axis: distances to densely sampled points of the line."""
    where = GRIDS[name]
    corners = np.array([[3.2, 6.2, 3.1], [14.7, 6.1, 4.4], [9.1, 6.3, 13.8], [22.4, 5.9, 14.2]])
    contour = Contour(tuple(map(tuple, where.to_world(corners))), closed=False)
    found = whole(contour, where, (9.0, thickness, 9.0))
    shares = np.linspace(0, 1, 4001)[:, None]
    dense = np.concatenate([a + shares * (b - a) for a, b in pairwise(corners)])
    index, _ = centres(where)
    flat = index[index[:, 1] == 6]
    nearest = np.array([np.linalg.norm(dense[:, [0, 2]] - one, axis=1).min() for one in flat[:, [0, 2]]])
    sure = np.abs(nearest - thickness / 2) > 0.01
    expected = nearest < thickness / 2
    # the corners' own voxels always are among them
    own = (flat[:, None] == np.rint(corners)[None]).all(-1).any(1)
    assert np.array_equal(found[tuple(flat[sure].T)], (expected | own)[sure])
    assert not np.delete(found, 6, axis=1).any()


def test_a_scribble_across_slices_hangs_together_and_follows_the_line() -> None:
    from scipy import ndimage

    where = GRIDS["oblique"]
    ends = np.array([[2.0, 3.0, 2.0], [23.0, 18.0, 15.0]])
    found = whole(Contour(tuple(map(tuple, where.to_world(ends))), closed=False), where)
    assert ndimage.label(found, np.ones((3, 3, 3)))[1] == 1
    voxels = np.argwhere(found)
    assert set(voxels[:, 2]) == set(range(2, 16))
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    off = voxels - ends[0] - ((voxels - ends[0]) @ along)[:, None] * along
    assert np.linalg.norm(off, axis=1).max() < 1.0


def test_a_dot_lies_on_an_axial_slice() -> None:
    where = GRIDS["permuted"]
    # the patient's long axis is the first of this grid
    dot = Contour(tuple(map(tuple, where.to_world(np.array([[5.0, 6.0, 7.0]])))), closed=False)
    found = np.argwhere(whole(dot, where, (4.0, 9.0, 9.0)))
    assert set(found[:, 0]) == {5}
    assert len(found) == 1
    line = Contour(dot.points * 2, closed=False)
    disc = np.argwhere(whole(line, where, (4.0, 9.0, 9.0)))
    assert set(disc[:, 0]) == {5}
    # voxels within 2 of a centre
    assert len(disc) == 13
