"""The fast path of resampling against the plain one and a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umdseg.data.geometry import Grid, resample
from umdseg.inference.sampling import crop_to, sample

AXES = {
    "finer": np.diag([1.3, 0.9, 2.1]),
    "flipped": np.diag([-1.3, 0.9, -5.0]),
    "permuted": np.array([[0, 0, -2.0], [1.5, 0, 0], [0, -0.7, 0]]),
    "almost parallel": np.diag([1.3, 0.9, 2.1]) + 1e-9,
    "oblique": np.array([[1.2, -0.3, 0], [0.3, 1.2, 0], [0, 0, 2.0]]),
}


def grids(name: str) -> tuple[Grid, Grid]:
    affine = np.eye(4)
    affine[:3, :3] = AXES[name]
    affine[:3, 3] = [3.0, -2.0, 1.0]
    # a target that sticks out of the source on every side
    centre = np.array([4.0, 5.0, 6.0]) * 2 + [3, 1, 2]
    shape = (31, 33, 29)
    affine[:3, 3] = centre - AXES[name] @ (np.array(shape) - 1) / 2
    return Grid((9, 11, 13), np.array([[2.0, 0, 0, 3], [0, 2.0, 0, 1], [0, 0, 2.0, 2], [0, 0, 0, 1]])), Grid(
        shape, affine
    )


@pytest.mark.parametrize("name", AXES)
def test_it_is_the_plain_resampling(name: str) -> None:
    source, target = grids(name)
    values = torch.randn(3, *source.shape, generator=torch.Generator().manual_seed(0))
    expected = resample(values, source, target, outside=-10.0)
    torch.testing.assert_close(sample(values, source, target, -10.0), expected, rtol=0, atol=2e-4)
    assert (expected == -10).any()


@pytest.mark.parametrize("name", AXES)
def test_a_linear_ramp_stays_a_linear_ramp(name: str) -> None:
    source, target = grids(name)

    def ramp(grid: Grid) -> torch.Tensor:
        index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1).reshape(-1, 3)
        world = grid.to_world(index) @ np.array([0.1, -0.2, 0.3])
        return torch.from_numpy(world.reshape(1, *grid.shape)).float()

    found, expected = sample(ramp(source), source, target, 0.0), ramp(target)
    index = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    voxel = source.to_index(target.to_world(index))
    inside = ((voxel >= 0) & (voxel <= np.array(source.shape) - 1)).all(axis=1).reshape(target.shape)
    assert inside.sum() > 100
    torch.testing.assert_close(found[0][inside], expected[0][inside], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", AXES)
def test_a_slab_touches_only_what_it_needs(name: str) -> None:
    source, whole = grids(name)
    values = torch.randn(2, *source.shape, generator=torch.Generator().manual_seed(0))
    expected = resample(values, source, whole, outside=-10.0)
    for start in range(0, whole.shape[2], 4):
        target = whole.slab(start, min(start + 4, whole.shape[2]))
        part, grid = crop_to(values, source, target)
        assert part.shape[1:] == grid.shape
        assert part.data_ptr() >= values.data_ptr(), "a view, not a copy"
        extent = np.ptp(source.to_index(target.to_world(target.corners())), axis=0)
        assert (np.array(grid.shape) <= np.ceil(extent) + 4).all()
        # what lies beyond the part is never looked at
        hidden = torch.full_like(values, torch.nan)
        low = source.to_index(grid.affine[None, :3, 3])[0].round().astype(int)
        place = tuple(slice(a, a + n) for a, n in zip(low.tolist(), grid.shape, strict=True))
        hidden[(slice(None), *place)] = part
        found = sample(hidden, source, target, outside=-10.0)
        torch.testing.assert_close(found, expected[..., start : start + 4], rtol=0, atol=2e-4)


def test_a_part_of_the_source_is_given_as_it_is() -> None:
    source, _ = grids("finer")
    values = torch.randn(2, *source.shape, generator=torch.Generator().manual_seed(0))
    found = sample(values, source, source.crop((1, 2, 3), (5, 7, 9)), outside=0.0)
    assert torch.equal(found, values[:, 1:5, 2:7, 3:9])


def test_a_volume_of_one_slice_reaches_half_a_slice() -> None:
    source = Grid((4, 4, 1), np.diag([1.0, 1.0, 10.0, 1.0]))
    target = Grid((4, 4, 5), np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 4.0, -8.0], [0, 0, 0, 1]]))
    found = sample(torch.ones(1, 4, 4, 1), source, target, outside=-1.0)
    assert found[0, 0, 0].tolist() == [-1, 1, 1, 1, -1]
