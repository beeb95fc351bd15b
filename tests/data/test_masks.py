"""Masks on other grids, against scipy's interpolation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from umdseg.data.geometry import Grid
from umdseg.data.masks import mask_on

OWN = Grid((17, 20, 23), np.array([[4.1, 0, 0, -30], [0, 4.1, 0, -41], [0, 0, 3.3, -37], [0, 0, 0, 1.0]]))


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


FINE = np.array([[1.7, 0, 0, -35], [0, 1.9, 0, -44], [0, 0, 2.3, -30], [0, 0, 0, 1.0]])
GRIDS = {
    "finer, reaching out": Grid((50, 44, 37), FINE),
    "coarser": Grid((9, 12, 11), FINE @ np.diag([4.0, 3.5, 4.2, 1])),
    "flipped": Grid(
        (50, 44, 37), FINE @ np.array([[-1, 0, 0, 48], [0, 1, 0, 0], [0, 0, -1, 36], [0, 0, 0, 1]])
    ),
    "axes exchanged": Grid((37, 50, 44), FINE[:, [2, 0, 1, 3]]),
    "oblique": Grid((50, 44, 37), turned(7) @ FINE),
    "beside it": Grid((10, 10, 10), FINE + np.array([[0, 0, 0, 300.0], *[[0] * 4] * 3])),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_mask_goes_where_half_of_a_voxel_is_its(name: str) -> None:
    grid = GRIDS[name]
    mask = gaussian_filter(np.random.default_rng(0).normal(size=OWN.shape), 1.5) > 0
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1).reshape(-1, 3)
    at = OWN.to_index(grid.to_world(index)).T
    share = map_coordinates(mask.astype(float), at, order=1, mode="nearest")
    inside = ((at >= -0.5) & (at <= np.array(OWN.shape)[:, None] - 0.5)).all(axis=0)
    expected = ((share >= 0.5) & inside).reshape(grid.shape)
    found = mask_on(mask, OWN, grid)
    # ties and the very edge are a matter of rounding
    clear = (np.abs(share - 0.5) > 1e-4).reshape(grid.shape)
    assert (found == expected)[clear].all()
    assert clear.mean() > 0.99
    assert found.any() == (name != "beside it")


def test_a_part_of_the_grid_is_cut_out() -> None:
    mask = np.random.default_rng(1).uniform(size=OWN.shape) < 0.5
    np.testing.assert_array_equal(mask_on(mask, OWN, OWN.crop((2, 3, 4), (9, 9, 9))), mask[2:9, 3:9, 4:9])


def test_half_a_voxel_is_enough_whatever_rounding_does() -> None:
    own = Grid((12, 14, 10), np.diag([4.0, 4.0, 4.0, 1]))
    grid = Grid((24, 28, 13), np.diag([2.0, 2.0, 3.0, 1]))
    mask = np.random.default_rng(0).uniform(size=own.shape) < 0.5
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1).reshape(-1, 3)
    # all weights are quarters, so shares of exactly one half are frequent, and exact
    at = own.to_index(grid.to_world(index)).T
    share = map_coordinates(mask.astype(float), at, order=1, mode="nearest").reshape(grid.shape)
    inside = (at <= np.array(own.shape)[:, None] - 0.5).all(axis=0).reshape(grid.shape)
    assert (share == 0.5).mean() > 0.1
    np.testing.assert_array_equal(mask_on(mask, own, grid), (share >= 0.5) & inside)
