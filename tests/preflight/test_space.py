"""Do the scans of one subject show one body in one place? Bodies of known geometry, and real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import read_image, read_label
from umdseg.preflight import space


def ball(
    value: float, air: float, centre=(0.0, 0, 0), spacing: float = 6.0, size: int = 50, radius: float = 80
) -> Volume:
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = -spacing * (size - 1) / 2
    grid = Grid((size,) * 3, affine)
    world = grid.to_world(np.indices(grid.shape).reshape(3, -1).T).reshape(*grid.shape, 3)
    inside = np.linalg.norm(world - centre, axis=-1) < radius
    return Volume(np.where(inside, value, air).astype(np.float32), grid)


def ct(**options) -> Volume:
    return ball(40, -1000, **options)


def pet(**options) -> Volume:
    return ball(1, 0, spacing=8.0, size=40, **options)


def test_one_body_in_one_place_says_nothing() -> None:
    assert list(space.compare({"ct": ct(), "pet": pet()}, "P1")) == []


def test_a_body_elsewhere_is_told_with_distance() -> None:
    (found,) = space.compare({"ct": ct(), "pet": pet(centre=(90.0, 0, 0))}, "P1")
    assert found.level == "warn"
    # the ball's far side is beyond the field of view, so its centre there is a little nearer than 90 mm
    assert 80 <= int(found.what.split("centres ")[1].split(" mm")[0]) <= 92
    # two balls of radius r at distance d overlap by (1 - d/2r)^2 (1 + d/4r) of their volume
    d, r = 90.0, 80.0
    expected = (1 - d / (2 * r)) ** 2 * (1 + d / (4 * r))
    assert abs(float(found.what.split("Dice ")[1].split(",")[0]) - expected) < 0.03


def test_lungs_belong_to_the_body() -> None:
    volume = ct()
    world = volume.grid.to_world(np.indices(volume.grid.shape).reshape(3, -1).T).reshape(
        *volume.grid.shape, 3
    )
    volume.array[np.linalg.norm(world, axis=-1) < 40] = -850
    lattice = space.common_lattice(volume.grid, volume.grid)
    assert lattice is not None
    centre = np.round(lattice.to_index(np.zeros((1, 3)))[0]).astype(int)
    assert space.body(volume, "ct", lattice)[tuple(centre)]


def test_share_of_the_field_of_view() -> None:
    grids = {"ct": ct().grid, "pet": ct().grid}
    assert space.common_share(grids) == pytest.approx(1)
    moved = grids["ct"].affine.copy()
    moved[0, 3] += 49 * 6 / 2
    assert space.common_share({**grids, "pet": Grid(grids["ct"].shape, moved)}) == pytest.approx(0.5)


def test_label_in_the_air() -> None:
    image = ct()
    inside = Volume((image.array > 0).astype(np.int16), image.grid)
    outside = Volume((image.array < 0).astype(np.int16), image.grid)
    assert list(space.labelled(inside, image, "ct", "P1")) == []
    (found,) = space.labelled(outside, image, "ct", "P1")
    assert "of the label lies on the body" in found.what


@pytest.mark.parametrize("flipped", [False, True])
def test_liver_on_the_wrong_side(flipped: bool) -> None:
    label = np.zeros((20, 10, 10), np.int16)
    label[2:6], label[14:16] = 1, 2
    step = 10.0 if flipped else -10.0  # in RAS+ the patient's right has the larger x
    grid = Grid(label.shape, np.diag([step, 10, 10, 1]))
    found = list(space.sides(Volume(label, grid), {"liver": 1, "spleen": 2}, "P1"))
    assert [f.level for f in found] == (["warn"] if flipped else [])
    assert all("110 mm to the left of spleen" in f.what for f in found)


def test_real_patients_are_in_one_place_and_moved_ones_mostly_not(shared_data: Path) -> None:
    moved_and_told = 0
    names = ("STS_001", "STS_002", "STS_004", "STS_008", "STS_010")
    for name in names:
        folder = shared_data / "sts_pet_ct_mr" / "nifti" / name
        volumes = {m: read_image(folder / f"{m.upper()}_image.nii.gz") for m in ("ct", "pet")}
        assert list(space.compare(volumes, name)) == []
        for modality, volume in volumes.items():
            label = read_label(folder / f"{modality.upper()}_mask.nii.gz")
            assert list(space.labelled(label, volume, modality, name)) == []
        shift = np.eye(4)
        shift[1, 3] = 100
        pet = volumes["pet"]
        volumes["pet"] = Volume(pet.array, Grid(pet.grid.shape, shift @ pet.grid.affine))
        moved_and_told += len(list(space.compare(volumes, name)))
    # crops that are full of body look alike wherever they lie
    assert moved_and_told >= len(names) - 1


def test_real_label_maps_are_on_their_side_and_flipped_ones_are_not(shared_data: Path) -> None:
    structures = {"spleen": 1, "liver": 3}  # label_ids.json of the data
    volume = read_label(sorted((shared_data / "autopet3_organ_labels").glob("psma_*.nii.gz"))[0])
    assert list(space.sides(volume, structures, "P")) == []
    (found,) = space.sides(Volume(volume.array[::-1], volume.grid), structures, "P")
    assert "left and right flipped?" in found.what
