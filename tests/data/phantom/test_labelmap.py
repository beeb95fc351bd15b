"""Folders of label maps: ids, sides, orientation, and each thing that can be wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import write_volume
from umdseg.data.phantom.labelmap import LabelMap, find_maps, read_ids, read_map, split_kidneys
from umdseg.data.phantom.subject import STRUCTURES
from umdseg.errors import UserError

Folder = Callable[..., Path]


def test_ids_get_canonical_names_and_kidneys_their_sides(folder: Folder) -> None:
    assert read_ids(folder("a")) == {
        **{"spleen": 1, "kidney_left": 2, "kidney_right": 9, "liver": 3, "urinary_bladder": 4},
        **{"lung": 5, "brain": 6, "heart": 7, "stomach": 8},
    }


@pytest.mark.parametrize(
    "text", ["{liver: 3, spleen: 1}", "structures: {liver: 3, spleen: 1}", "{3: liver, 1: spleen}"]
)
def test_ids_may_be_yaml_either_way_round(tmp_path: Path, text: str) -> None:
    path = tmp_path / "names.yaml"
    path.write_text(text)
    assert read_ids(tmp_path, str(path)) == {"liver": 3, "spleen": 1}


def test_kidneys_are_told_apart_as_the_anatomy_has_them(organs: Volume, sides: Volume) -> None:
    ids = {"kidney_left": 2, "kidney_right": 9, "lung": 5}
    found = split_kidneys(LabelMap(np.asarray(organs.array), organs.grid, ids))
    truth = np.asarray(sides.array)
    assert np.array_equal(found.array == 2, truth == STRUCTURES["kidney_left"])
    assert np.array_equal(found.array == 9, truth == STRUCTURES["kidney_right"])


@pytest.mark.parametrize("axes", ["LPS", "LAS", "SAL", "PIR"])
def test_any_orientation_of_the_file_is_the_same_map(folder: Folder, tmp_path: Path, axes: str) -> None:
    root = folder("a")
    ids = read_ids(root)
    path = root / "a.nii.gz"
    image = nib.load(path)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
    )
    nib.save(image.as_reoriented(turn), tmp_path / "turned.nii.gz")
    straight, turned = read_map(path, ids), read_map(tmp_path / "turned.nii.gz", ids)
    assert turned.grid.same_as(straight.grid, 0.01)
    assert np.array_equal(turned.array, straight.array)


def test_real_maps_have_kidneys_and_organs_on_their_sides(shared_data: Path) -> None:
    root = shared_data / "autopet3_organ_labels"
    ids = read_ids(root)
    for path in find_maps(root)[8::4]:
        label = read_map(path, ids)
        at = {
            n: label.grid.to_world(np.argwhere(label.array == i).astype(float)).mean(axis=0)
            for n, i in ids.items()
            if (label.array == i).any()
        }
        # RAS+: +x is the patient's right
        assert at["kidney_left"][0] < at["lung"][0] < at["kidney_right"][0]
        assert at["spleen"][0] < at["liver"][0]
        volumes = [
            (label.array == ids[n]).sum() * label.grid.voxel_ml for n in ("kidney_left", "kidney_right")
        ]
        assert 50 < min(volumes) <= max(volumes) < 350


def test_folders_that_cannot_be_used(tmp_path: Path, folder: Folder) -> None:
    with pytest.raises(UserError, match="missing"):
        find_maps(tmp_path / "nowhere")
    root = folder("a")
    with pytest.raises(UserError, match="no label maps") as caught:
        find_maps(root.parent)
    assert caught.value.nearest == str(root)
    (root / "a.nii").write_bytes(b"")
    with pytest.raises(UserError, match="'a' is there twice"):
        find_maps(root)


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ('{"1": "spleeen"}', "did you mean: spleen"),
        ('{"1": "liver", "2": "Liver"}', "'liver' is named twice"),
        ("{liver: 1, spleen: 1}", "both 'liver' and 'spleen'"),
        ('{"liver": "one"}', "not an id with a name"),
        ('{"99999": "liver"}', "id 99999"),
        ("[liver]", "no structures are named"),
        ('{"0": "background"}', "no structures are named"),
        ("{liver: [", "not readable"),
    ],
)
def test_ids_that_cannot_be_used(tmp_path: Path, ids: str, told: str) -> None:
    (tmp_path / "label_ids.json").write_text(ids)
    with pytest.raises(UserError, match=told) as caught:
        read_ids(tmp_path)
    assert "label_ids.json" in str(caught.value)


def test_a_folder_without_names_says_how_to_give_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.label_ids=FILE"):
        read_ids(tmp_path)


def test_maps_that_cannot_be_used(tmp_path: Path) -> None:
    ids = {"liver": 1, "lung": 2}
    grid = Grid((8, 8, 8), np.diag([5.0, 5.0, 5.0, 1.0]))
    block = np.zeros(grid.shape, dtype=np.uint8)
    write_volume(Volume(block, grid), tmp_path / "empty.nii.gz")
    with pytest.raises(UserError, match="empty") as caught:
        read_map(tmp_path / "empty.nii.gz", ids)
    assert "empty.nii.gz" in str(caught.value)
    block[2:5, 2:5, 2:5] = 7
    write_volume(Volume(block, grid), tmp_path / "odd.nii.gz")
    with pytest.raises(UserError, match="ids that no structure has: 7"):
        read_map(tmp_path / "odd.nii.gz", ids)
    turned = np.eye(4)
    angle = np.deg2rad(10)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    write_volume(Volume(np.minimum(block, 1), Grid(grid.shape, turned)), tmp_path / "oblique.nii.gz")
    with pytest.raises(UserError, match="oblique"):
        read_map(tmp_path / "oblique.nii.gz", ids)


def test_a_truncated_map_names_its_file(folder: Folder) -> None:
    root = folder("a")
    path = root / "a.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"a\.nii\.gz"):
        read_map(path, read_ids(root))


def test_ids_file_of_the_public_maps(shared_data: Path) -> None:
    root = shared_data / "autopet3_organ_labels"
    published = {int(k): v for k, v in json.loads((root / "label_ids.json").read_text()).items()}
    found = {number: name for name, number in read_ids(root).items()}
    for number, name in published.items():
        if name not in ("background", "kidneys", "lungs"):
            assert found[number] == name
    assert (found[2], found[5], found[11]) == ("kidney_left", "lung", "kidney_right")
    assert len(find_maps(root)) == 17
