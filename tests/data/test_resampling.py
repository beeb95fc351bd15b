"""Resampling of scans against torch and SciPy; label maps against closed forms and real organs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from umdseg.data.geometry import Grid, Volume, canonical_grid, resample
from umdseg.data.io.nifti import read_image, read_label
from umdseg.data.resampling import resample_image, resample_labels


def grid(shape, spacing, angles=(0, 0, 0), flips=(1, 1, 1), centre=(0.13, -0.21, 0.37)) -> Grid:
    affine = np.eye(4)
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = axes @ np.diag(np.array(spacing) * flips)
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def world(where: Grid) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, where.shape), indexing="ij"), axis=-1)
    return where.to_world(index.reshape(-1, 3)).reshape(*where.shape, 3)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


SOURCES = {
    "anisotropic": grid((21, 17, 9), (0.9, 1.1, 4.7)),
    "oblique": grid((19, 18, 14), (1.3, 1.0, 1.9), (17, -23, 31)),
    "flipped (LPS)": grid((20, 17, 12), (1.1, 1.2, 2.9), flips=(-1, -1, 1)),
}
TARGET = grid((14, 15, 16), (1.57, 1.57, 1.57), (-11, 8, 40), centre=(1.01, -2.13, 0.52))


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_images_equal_scipy_inside_the_field(source: Grid) -> None:
    array = np.random.default_rng(0).normal(size=source.shape).astype(np.float32)
    found = resample_image(Volume(array, source), TARGET, outside=-7.0)
    place = source.to_index(world(TARGET).reshape(-1, 3)).T
    wanted = ndimage.map_coordinates(array, place, order=1, mode="nearest").reshape(TARGET.shape)
    # SciPy has no field of view that ends half a voxel beyond the last centre
    edge = np.minimum(place + 0.5, np.array(source.shape)[:, None] - 0.5 - place).min(axis=0)
    inside, outside = (edge > 1e-3).reshape(TARGET.shape), (edge < -1e-3).reshape(TARGET.shape)
    assert inside.sum() > 200
    np.testing.assert_allclose(found[inside], wanted[inside], atol=2e-4)
    assert (found[outside] == -7).all()


@pytest.mark.parametrize("spacing", [1.5, 6.0])
def test_a_real_scan_equals_the_torch_path_up_to_and_over_the_border(
    shared_data: Path, spacing: float
) -> None:
    volume = read_image(shared_data / "sts_pet_ct_mr/nifti/STS_002/CT_image.nii.gz")
    target = canonical_grid(volume.grid, (spacing, spacing, spacing))
    ours = resample_image(volume, target)
    theirs = resample(torch.from_numpy(volume.array)[None], volume.grid, target)[0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=0.05)  # HU
    assert theirs.std() > 100


def test_the_same_grid_gives_a_copy() -> None:
    source = SOURCES["oblique"]
    array = np.random.default_rng(1).normal(size=source.shape).astype(np.float32)
    found = resample_image(Volume(array, source), Grid(source.shape, source.affine.copy()))
    np.testing.assert_array_equal(found, array)
    assert not np.shares_memory(found, array)


def test_labels_of_balls_keep_their_volume_and_place() -> None:
    source, target = grid((80, 80, 40), (1.0, 1.0, 2.0), (8, 12, -20)), grid((30, 30, 30), (2.7, 2.7, 2.7))
    label = np.zeros(source.shape, dtype=np.int16)
    balls = {3: ((-12, 5, 4), 14.0), 700: ((18, -6, -8), 9.0)}
    for number, (centre, radius) in balls.items():
        label[np.linalg.norm(world(source) - centre, axis=-1) <= radius] = number
    found = resample_labels(Volume(label, source), target)
    assert set(np.unique(found)) == {0, 3, 700}
    for number, (centre, radius) in balls.items():
        truth = np.linalg.norm(world(target) - centre, axis=-1) <= radius
        assert dice(found == number, truth) > 0.95
        volume = (found == number).sum() * target.voxel_ml
        assert volume == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.03)


def test_touching_structures_leave_no_gap() -> None:
    source, target = grid((40, 40, 40), (1.0, 1.0, 1.0)), grid((30, 30, 30), (0.83, 0.83, 0.83), (20, 30, 10))
    angle = np.degrees(np.arctan2(world(source)[..., 1], world(source)[..., 0])) + 180
    # a ball of three wedges; along their common axis none of them fills half a voxel
    ball = np.linalg.norm(world(source), axis=-1) <= 10
    label = np.where(ball, 1 + np.floor(angle / 120.001), 0).astype(np.int16)
    found = resample_labels(Volume(label, source), target)
    whole = resample_labels(Volume(ball.astype(np.int16), source), target)
    assert set(np.unique(found)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(found > 0, whole > 0)


def test_a_vessel_too_thin_for_the_grid_keeps_its_volume() -> None:
    """2 mm wide on 4 mm voxels: none is filled by half, and nearest neighbour gives what chance gives."""
    source = grid((70, 70, 70), (1.0, 1.0, 1.0))
    axis = np.array([1, 0.7, 0.5]) / np.linalg.norm([1, 0.7, 0.5])
    along = world(source) @ axis
    across = np.linalg.norm(world(source) - along[..., None] * axis, axis=-1)
    vessel = ((across <= 1.0) & (np.abs(along) < 25)).astype(np.int16)
    for shift in range(4):
        target = grid((18, 18, 18), (4.0, 4.0, 4.0), centre=(shift, 0.7 * shift, 0.3))
        found = resample_labels(Volume(vessel, source), target) > 0
        assert found.sum() * target.voxel_ml == pytest.approx(vessel.sum() / 1000, abs=target.voxel_ml)
        # every voxel it takes is touched by the vessel: its centre lies within a voxel's half diagonal
        place = world(target)[found]
        distance = np.linalg.norm(place - (place @ axis)[:, None] * axis, axis=-1)
        assert distance.max() < 4 * np.sqrt(3) / 2 + 1


def test_a_lesion_smaller_than_a_voxel_does_not_vanish() -> None:
    source, target = grid((60, 60, 60), (1.0, 1.0, 1.0)), grid((10, 10, 10), (6.0, 6.0, 6.0))
    label = np.zeros(source.shape, dtype=np.int16)
    label[10:50, 10:50, 10:50] = 1
    label[33, 27, 30] = 2  # inside an organ that fills the rest of the voxel
    found = resample_labels(Volume(label, source), target)
    lesion = target.to_world(np.argwhere(found == 2).astype(float))
    assert len(lesion) == 1
    assert np.abs(lesion[0] - source.to_world(np.array([[33.0, 27, 30]]))[0]).max() <= 3.0 + 1e-6


def test_what_lies_outside_the_target_is_left_out() -> None:
    source = grid((20, 20, 20), (1.0, 1.0, 1.0), centre=(0, 0, 0))
    label = np.zeros(source.shape, dtype=np.int16)
    label[:3], label[17:] = 1, 2
    found = resample_labels(Volume(label, source), source.crop((-6, 0, 0), (10, 20, 20)))
    assert set(np.unique(found)) == {0, 1}
    np.testing.assert_array_equal(found[6:9], 1)
    assert not found[:6].any()


def turned(labels: Volume, how: str) -> Volume:
    """The same map stored otherwise, or lying obliquely in the scanner."""
    array, where = labels.array, labels.grid
    if how == "flipped":
        back = np.diag([-1.0, 1, -1, 1])
        back[[0, 2], 3] = array.shape[0] - 1, array.shape[2] - 1
        return Volume(array[::-1, :, ::-1].copy(), Grid(where.shape, where.affine @ back))
    if how == "permuted":
        moved = array.transpose(1, 2, 0).copy()
        axes = np.zeros((4, 4))
        axes[1, 0] = axes[2, 1] = axes[0, 2] = axes[3, 3] = 1
        return Volume(moved, Grid(moved.shape, where.affine @ axes))
    if how == "oblique":
        rotation = np.eye(4)
        rotation[:3, :3] = Rotation.from_euler("xyz", (12, -9, 20), degrees=True).as_matrix()
        return Volume(array, Grid(where.shape, rotation @ where.affine))
    return labels


def organ(labels: Volume, number: int) -> Volume:
    """One organ with its surroundings."""
    hits = [np.flatnonzero((labels.array == number).any(axis=a)) for a in ((1, 2), (0, 2), (0, 1))]
    box = [slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits]
    start = [max(part.start - 6, 0) for part in box]
    stop = [min(part.stop + 6, size) for part, size in zip(box, labels.array.shape, strict=True)]
    place = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return Volume(labels.array[place], labels.grid.crop(tuple(start), tuple(stop)))


@pytest.fixture(scope="module")
def organs(shared_data: Path) -> list[tuple[int, Volume]]:
    folder = shared_data / "autopet3_organ_labels"
    labels = read_label(sorted(folder.glob("fdg_*.nii.gz"))[0])
    # spleen, urinary bladder, stomach: all above 50 ml
    return [(number, organ(labels, number)) for number in (1, 4, 8)]


@pytest.mark.parametrize("how", ["as stored", "flipped", "permuted", "oblique"])
def test_real_organs_survive_the_way_to_the_cards_grid_and_back(
    organs: list[tuple[int, Volume]], how: str
) -> None:
    """VISTA3D's 1.5 mm; every organ above 50 ml keeps a Dice of 0.98 (all 17 maps: see the issue)."""
    for number, labels in organs:
        stored = turned(labels, how)
        card = canonical_grid(stored.grid, (1.5, 1.5, 1.5))
        prepared = Volume(resample_labels(stored, card), card)
        back = resample_labels(prepared, stored.grid)
        truth = stored.array == number
        assert truth.sum() * stored.grid.voxel_ml > 50
        assert dice(back == number, truth) >= 0.98


def test_coarse_grids_cost_less_than_nearest_does(organs: list[tuple[int, Volume]]) -> None:
    """At the small model's 6 mm no method keeps 0.98; ours must lose less than nearest neighbour."""
    for number, labels in organs:
        card = canonical_grid(labels.grid, (6.0, 6.0, 6.0))
        back = resample_labels(Volume(resample_labels(labels, card), card), labels.grid) == number
        values = torch.from_numpy(labels.array.copy())[None]
        there = resample(values, labels.grid, card, "nearest", outside=0.0)
        nearest = resample(there, card, labels.grid, "nearest", outside=0.0)[0].numpy() == number
        truth = labels.array == number
        assert dice(back, truth) > dice(nearest, truth)
        assert dice(back, truth) > 0.9
