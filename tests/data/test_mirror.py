"""Mirrored patches: what is seen stays where it was in the patient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umdseg.data.mirror import drawn_axes, mirrored, mirrored_affine, refuse_sides
from umdseg.errors import UserError


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_every_voxel_keeps_its_millimetres(axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    shape = (3, 4, 5)
    affine = torch.from_numpy(rng.normal(size=(4, 4)))
    affine[3] = torch.tensor([0.0, 0, 0, 1])
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    homogeneous = np.c_[index, np.ones(len(index))]
    # an image whose value is its own place, one channel per coordinate
    place = (homogeneous @ affine.numpy().T)[:, :3].T.reshape(3, *shape)
    turned = mirrored(torch.from_numpy(place), axes)
    moved = mirrored_affine(affine, shape, axes).numpy()
    wanted = (homogeneous @ moved.T)[:, :3].T.reshape(3, *shape)
    np.testing.assert_allclose(turned.numpy(), wanted, atol=1e-12)


def test_each_axis_is_turned_half_the_time() -> None:
    rng = np.random.default_rng(1)
    drawn = [drawn_axes(rng) for _ in range(800)]
    share = [sum(axis in axes for axes in drawn) / 800 for axis in range(3)]
    # 5 standard deviations of a fair coin
    np.testing.assert_allclose(share, 0.5, atol=0.09)
    assert len(set(drawn)) == 8


@pytest.mark.parametrize("name", ["kidney_left", "lung_upper_lobe_right"])
def test_structures_with_a_side_are_refused(name: str) -> None:
    refuse_sides(["tumour", "liver"])
    with pytest.raises(UserError, match=name) as caught:
        refuse_sides(["tumour", name])
    assert caught.value.where == "data.augmentation.mirror"
