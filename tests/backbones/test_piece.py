"""Answers of native sessions brought onto grids: peer is SciPy's interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from umdseg.backbones import slabs
from umdseg.backbones.piece import Piece, scores
from umdseg.data.geometry import Grid

NATIVE = Grid((9, 8, 12), np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -3], [0, 0, 3.0, 7], [0, 0, 0, 1]]))


def gather(pieces, target):
    return torch.cat([part for _, part in scores(pieces, NATIVE, target)], dim=-1)


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_NUMBERS", 9 * 8 * 6 * 5)


def test_the_scans_own_grid_gets_the_values_unchanged():
    values = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0)).half()
    found = gather([Piece(values, (2, 1, 4)), Piece(torch.zeros(0, 0, 0), (0, 0, 0))], NATIVE)
    expected = torch.full((2, 9, 8, 12), -10.0)
    expected[0, 2:6, 1:4, 4:11] = values.float()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.int8])
def test_another_grid_gets_them_linearly_and_background_beyond(kind):
    # bytes are masks, 10 or -10
    values = torch.where(torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0)) > 0, 10.0, -10.0)
    affine = np.array([[0.7, 0.2, 0, -9], [-0.1, 0.9, 0, -3], [0, 0, 1.1, 15], [0, 0, 0, 1]])
    target = Grid((20, 14, 25), affine)
    found = gather([Piece(values.to(kind), (2, 1, 4))], target)[0].numpy()
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in target.shape], indexing="ij"), -1).reshape(-1, 3)
    index = NATIVE.to_index(target.to_world(voxels)) - np.array([2, 1, 4])
    expected = ndimage.map_coordinates(values.numpy(), index.T, order=1, mode="nearest")
    inside = ((index >= -0.5) & (index <= np.array([4, 3, 7]) - 0.5)).all(axis=1)
    expected[~inside] = -10
    assert 200 < inside.sum() < inside.size - 200
    np.testing.assert_allclose(found.reshape(-1), expected, rtol=0, atol=2e-4)
