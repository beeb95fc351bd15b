"""Grids and resampling against SimpleITK and closed forms."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from umdseg.data.geometry import Grid, canonical_grid, resample, resample_slabs

sitk = pytest.importorskip("SimpleITK")


def grid(shape, spacing, angles=(0, 0, 0), flips=(1, 1, 1), centre=(0.13, -0.21, 0.37)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(
        np.array(spacing) * flips
    )
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


SOURCES = {
    "anisotropic": grid((21, 17, 9), (0.9, 1.1, 4.7)),
    "oblique": grid((19, 18, 14), (1.3, 1.0, 1.9), (17, -23, 31)),
    "flipped (LPS)": grid((20, 17, 12), (1.1, 1.2, 2.9), flips=(-1, -1, 1)),
}
TARGETS = {
    "isotropic": grid((14, 15, 16), (1.57, 1.57, 1.57), centre=(1.01, -2.13, 0.52)),
    "oblique": grid((15, 13, 11), (1.7, 1.45, 2.3), (-11, 8, 40), flips=(1, -1, 1), centre=(-1.3, 0.71, 2.2)),
}


def to_sitk(array: np.ndarray, where: Grid):
    """SimpleITK keeps (z, y, x) arrays and LPS coordinates."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    lps = np.diag([-1.0, -1.0, 1.0])
    image.SetSpacing(where.spacing)
    image.SetOrigin(tuple(lps @ where.affine[:3, 3]))
    image.SetDirection(tuple((lps @ where.affine[:3, :3] / where.spacing).ravel()))
    return image


def sitk_resample(array, source, target, interpolator, outside):
    reference = to_sitk(np.zeros(target.shape, dtype=array.dtype), target)
    moved = sitk.Resample(to_sitk(array, source), reference, sitk.Transform(), interpolator, outside)
    return sitk.GetArrayFromImage(moved).transpose(2, 1, 0)


def undecided(source: Grid, target: Grid, at_faces_only: bool) -> np.ndarray:
    """Target voxels whose place is a toss-up: at the field's face, or midway between source voxels."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in target.shape], indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    place = source.to_index(target.to_world(index)).reshape(*target.shape, 3)
    faces = (np.abs(place + 0.5) < 1e-3) | (np.abs(place - np.array(source.shape) + 0.5) < 1e-3)
    midway = np.abs(place - np.floor(place) - 0.5) < 1e-3
    return (faces if at_faces_only else midway).any(axis=-1)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_linear_equals_simpleitk(source: Grid, target: Grid) -> None:
    array = np.random.default_rng(0).normal(size=source.shape).astype(np.float32)
    ours = resample(torch.from_numpy(array)[None], source, target, outside=-7.0)[0].numpy()
    theirs = sitk_resample(array, source, target, sitk.sitkLinear, -7.0)
    sure = ~undecided(source, target, at_faces_only=True)
    assert (theirs != -7).mean() > 0.2
    np.testing.assert_allclose(ours[sure], theirs[sure], atol=2e-4)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_nearest_equals_simpleitk(source: Grid, target: Grid) -> None:
    array = np.random.default_rng(1).integers(1, 200, size=source.shape).astype(np.int16)
    ours = resample(torch.from_numpy(array)[None], source, target, mode="nearest", outside=0)[0]
    theirs = sitk_resample(array, source, target, sitk.sitkNearestNeighbor, 0)
    sure = ~undecided(source, target, at_faces_only=False)
    assert ours.dtype == torch.int16
    assert sure.mean() > 0.95
    np.testing.assert_array_equal(ours.numpy()[sure], theirs[sure])


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_linear_reproduces_a_ramp_in_patient_space(source: Grid) -> None:
    def ramp(where: Grid) -> np.ndarray:
        index = np.stack(np.meshgrid(*[np.arange(n) for n in where.shape], indexing="ij"), axis=-1)
        return where.to_world(index.reshape(-1, 3)) @ np.array([0.3, -0.2, 0.5]).reshape(3, 1)

    target = TARGETS["isotropic"]
    array = torch.from_numpy(ramp(source).reshape(1, *source.shape).astype(np.float32))
    moved = resample(array, source, target, outside=float("nan"))[0].numpy()
    wanted = ramp(target).reshape(target.shape)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in target.shape], indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    place = source.to_index(target.to_world(index)).reshape(*target.shape, 3)
    inner = ((place > 0) & (place < np.array(source.shape) - 1)).all(axis=-1)
    assert inner.any()
    np.testing.assert_allclose(moved[inner], wanted[inner], atol=1e-4)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_slabs_equal_the_whole(mode) -> None:
    source, target = SOURCES["oblique"], TARGETS["isotropic"]
    values = torch.from_numpy(np.random.default_rng(2).normal(size=(2, *source.shape)).astype(np.float32))
    whole = resample(values, source, target, mode, slab=1000)
    seen = torch.full_like(whole, torch.nan)
    for where, part in resample_slabs(values, source, target, mode, slab=3):
        assert part.shape[-1] <= 3
        seen[..., where] = part
    sure = (
        torch.from_numpy(~undecided(source, target, at_faces_only=False))
        if mode == "nearest"
        else slice(None)
    )
    torch.testing.assert_close(seen[:, sure], whole[:, sure], atol=1e-4, rtol=0)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_canonical_grid_covers_the_field_of_view(source: Grid) -> None:
    spacing = (1.5, 2.0, 3.1)
    canonical = canonical_grid(source, spacing)
    np.testing.assert_allclose(canonical.affine[:3, :3], np.diag(spacing))
    ends = [(-0.5, n - 0.5) for n in source.shape]
    world = source.to_world(np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1).T)
    low = canonical.to_world(np.array([[-0.5] * 3]))[0]
    high = canonical.to_world(np.array(canonical.shape) - 0.5)
    np.testing.assert_allclose(low, world.min(axis=0), atol=1e-9)
    assert (high >= world.max(axis=0) - 1e-2).all()
    assert (high - world.max(axis=0) < np.array(spacing)).all()


def test_canonical_grid_of_a_canonical_grid_is_itself() -> None:
    source = grid((7, 9, 11), (1.5, 1.5, 1.5))
    assert canonical_grid(source, (1.5, 1.5, 1.5)).same_as(source, 1e-6)


def test_flipped_grid_resampled_to_ras_is_the_array_reversed() -> None:
    source = grid((5, 6, 4), (1, 1, 1), flips=(-1, -1, 1))
    array = torch.from_numpy(np.random.default_rng(3).normal(size=source.shape).astype(np.float32))
    moved = resample(array[None], source, canonical_grid(source, (1, 1, 1)))[0]
    torch.testing.assert_close(moved, array.flip((0, 1)), atol=1e-5, rtol=0)


def test_crop_keeps_millimetres() -> None:
    source = SOURCES["oblique"]
    part = source.crop((3, -2, 5), (9, 4, 6))
    assert part.shape == (6, 6, 1)
    np.testing.assert_allclose(
        part.to_world(np.array([[1.0, 1, 0]])), source.to_world(np.array([[4.0, -1, 5]]))
    )


def test_same_as_notices_a_flip_and_a_shift() -> None:
    source = SOURCES["anisotropic"]
    shifted = source.affine.copy()
    shifted[2, 3] += 0.2
    assert source.same_as(Grid(source.shape, source.affine.copy()))
    assert not source.same_as(Grid(source.shape, shifted))
    assert not source.same_as(Grid(source.shape, source.affine @ np.diag([-1, 1, 1, 1])))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "ASR"])
@pytest.mark.parametrize("spacing", [None, (1.0, 2.0, 3.0)])
def test_grids_of_any_orientation_name_the_same_places(codes, spacing):
    affine = np.diag([-1.5, 2.0, 2.5, 1.0])
    affine[:3, 3] = (10, -20, 30)
    grid = Grid((12, 10, 8), affine)
    found = canonical_grid(grid, spacing, codes)
    assert "".join(nib.aff2axcodes(found.affine)) == codes
    if spacing:
        np.testing.assert_allclose(found.spacing, spacing)
    own, other = (g.to_world(g.corners()) for g in (grid, found))
    # the covered boxes agree up to one voxel, and exactly where the voxels are kept
    step = 0 if spacing is None else 3.0
    np.testing.assert_allclose(own.min(axis=0), other.min(axis=0), atol=step)
    np.testing.assert_allclose(own.max(axis=0), other.max(axis=0), atol=step)


def test_reorienting_moves_no_voxel():
    affine = np.diag([-1.5, 2.0, 2.5, 1.0])
    values = torch.arange(12 * 10 * 8, dtype=torch.float32).reshape(1, 12, 10, 8)
    source = Grid((12, 10, 8), affine)
    target = canonical_grid(source, None, "SPL")
    found = resample(values, source, target)
    oracle = nib.as_closest_canonical(nib.Nifti1Image(values[0].numpy(), affine)).get_fdata()
    np.testing.assert_allclose(found[0].numpy(), oracle[::-1, ::-1].transpose(2, 1, 0), atol=1e-3)
