"""Clicks: the deepest place all scans of a person share, in patient millimetres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from umdseg.data.geometry import Grid
from umdseg.data.io.nifti import read_label
from umdseg.data.sources.sts import StsOptions, StsSource
from umdseg.prompts.clicks import first_click, sample_clicks


def grid(shape, spacing, origin, flips=(1, 1, 1)) -> Grid:
    affine = np.diag([*(np.array(spacing) * flips), 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)


def ball(where: Grid, centre, radius) -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in where.shape], indexing="ij"), axis=-1)
    world = index @ where.affine[:3, :3].T + where.affine[:3, 3]
    return np.linalg.norm(world - np.array(centre), axis=-1) < radius


CT = grid((60, 50, 20), (1, 1, 3), (30, 25, -30), flips=(-1, -1, 1))
PET = grid((16, 14, 16), (4.5, 4.5, 4.5), (-33, -30, -33))


def test_ball_is_clicked_in_its_centre() -> None:
    click = first_click([(ball(CT, (3, -4, 6), 12), CT)], CT)
    assert np.abs(np.array(click) - [3, -4, 6]).max() <= 1.0


def test_depth_is_measured_in_millimetres_not_voxels() -> None:
    """In voxels the first box is deeper (4 against 2), in millimetres the second (6 against 4)."""
    mask = np.zeros(CT.shape, dtype=bool)
    mask[5:12, 5:12, 2:18] = True  # 7 x 7 x 48 mm
    mask[30:41, 20:31, 8:12] = True  # 11 x 11 x 12 mm
    click = first_click([(mask, CT)], CT)
    index = CT.to_index(np.array([click]))[0]
    assert 30 <= index[0] < 41


def test_click_lies_in_the_intersection_of_all_scans() -> None:
    """Two balls 10 mm apart meet in a lens whose deepest place is midway, by symmetry."""
    first, second = ball(CT, (-5, 0, 0), 14), ball(PET, (5, 0, 0), 14)
    click = first_click([(first, CT), (second, PET)], CT)
    assert np.linalg.norm(np.array(click)) < 3.5
    inside_pet = PET.to_index(np.array([click]))[0].round().astype(int)
    assert second[tuple(inside_pet)]
    # the order of the scans changes nothing
    assert first_click([(second, PET), (first, CT)], CT) == click


def test_intersection_equals_simpleitks_on_the_reference_grid() -> None:
    sitk = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(3)
    first = ball(CT, (2, 3, -4), 15)
    second = ball(PET, (-3, 1, 2), 17) & (rng.random(PET.shape) > 0.02)

    def to_sitk(array, where):
        image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)).astype(np.uint8))
        lps = np.diag([-1.0, -1.0, 1.0])
        image.SetSpacing(where.spacing)
        image.SetOrigin(tuple(lps @ where.affine[:3, 3]))
        image.SetDirection(tuple((lps @ where.affine[:3, :3] / where.spacing).ravel()))
        return image

    moved = sitk.Resample(
        to_sitk(second, PET), to_sitk(first, CT), sitk.Transform(), sitk.sitkNearestNeighbor, 0
    )
    common = sitk.And(moved, to_sitk(first, CT))
    depth = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(common, True, False, True)).transpose(2, 1, 0)
    click = first_click([(first, CT), (second, PET)], CT)
    index = tuple(CT.to_index(np.array([click]))[0].round().astype(int))
    # Maurer's map measures to the inside's border voxels, ours to the outside: one voxel apart
    assert depth[index] >= depth.max() - 1.0
    assert sitk.GetArrayFromImage(common).transpose(2, 1, 0)[index] == 1


def test_ties_go_to_the_first_voxel() -> None:
    mask = np.zeros(CT.shape, dtype=bool)
    for x in (10, 30, 50):
        mask[x - 2 : x + 3, 20:25, 5:10] = True
    index = CT.to_index(np.array([first_click([(mask, CT)], CT)]))[0]
    # three equal boxes of 5 x 5 x 15 mm: every voxel on their long axes is 3 mm deep
    np.testing.assert_allclose(index, [10, 22, 5], atol=1e-6)


def test_edge_of_the_field_counts_as_outside() -> None:
    """A structure cut by the field's edge is clicked in its middle, not on the edge."""
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[0:8, 5:15, 5:15] = True
    where = grid((20, 20, 20), (1, 1, 1), (0, 0, 0))
    assert 2 <= first_click([(mask, where)], where)[0] <= 5


def test_no_common_place_gives_none() -> None:
    assert first_click([(ball(CT, (-18, 0, 0), 8), CT), (ball(PET, (18, 0, 0), 8), PET)], CT) is None
    assert first_click([(np.zeros(CT.shape, bool), CT)], CT) is None
    assert first_click([(ball(CT, (0, 0, 0), 9), CT), (np.zeros(PET.shape, bool), PET)], CT) is None


def test_one_click_lies_in_all_masks_of_a_real_patient(shared_data: Path) -> None:
    dataset = StsSource(StsOptions(root=str(shared_data / "sts_pet_ct_mr"))).load(0)
    for subject in dataset.subjects[:6]:
        masks = {m: read_label(s.label) for m, s in subject.scans.items()}
        pairs = [(v.array == 1, v.grid) for v in masks.values()]
        click = first_click(pairs, masks[subject.reference()].grid)
        for mask, where in pairs:
            assert mask[tuple(where.to_index(np.array([click]))[0].round().astype(int))], subject.id


AFFINE = np.array([[2.0, 0, 0, -7], [0, 2, 0, 5], [0, 0, 4, 100], [0, 0, 0, 1]])


def patch() -> np.ndarray:
    label = np.zeros((24, 20, 16), dtype=np.int16)
    label[4:14, 5:15, 4:12] = 2
    label[16:20, 5:9, 4:8] = 1
    return label


def indices(prompt) -> np.ndarray:
    world = np.array(prompt.points) - AFFINE[:3, 3]
    return np.round(world @ np.linalg.inv(AFFINE[:3, :3]).T).astype(int)


def test_training_clicks_lie_on_the_side_their_sign_says() -> None:
    label, counts = patch(), set()
    for seed in range(60):
        prompt = sample_clicks(
            torch.from_numpy(label), 2, torch.from_numpy(AFFINE), np.random.default_rng(seed), "liver"
        )
        values = label[tuple(indices(prompt).T)]
        for value, sign in zip(values, prompt.signs, strict=True):
            assert (value == 2) == (sign == 1)
        assert prompt.structure == "liver"
        assert prompt.kind == ("point" if len(prompt.points) == 1 else "clicks")
        counts.add((prompt.signs.count(1), prompt.signs.count(0)))
    assert counts == {(p, n) for p in (1, 2, 3) for n in (0, 1, 2)}


def test_first_training_click_is_deep() -> None:
    """The box is 20 x 20 x 32 mm: its deeper half lies at least 5 of 10 mm from every face."""
    for seed in range(30):
        prompt = sample_clicks(patch(), 2, AFFINE, np.random.default_rng(seed), "liver")
        x, y, z = indices(prompt)[0]
        # distance to the first voxel outside
        faces = [2 * (x - 3), 2 * (14 - x), 2 * (y - 4), 2 * (15 - y), 4 * (z - 3), 4 * (12 - z)]
        assert min(faces) >= 5


def test_training_clicks_repeat_and_vary() -> None:
    first, again, other = (
        sample_clicks(patch(), 2, AFFINE, np.random.default_rng(s), "liver") for s in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_absent_structure_has_no_clicks() -> None:
    assert sample_clicks(patch(), 5, AFFINE, np.random.default_rng(0), "spleen") is None


def test_structure_that_fills_the_patch_has_no_negative_clicks() -> None:
    full = np.full((6, 6, 6), 3)
    for seed in range(10):
        assert set(sample_clicks(full, 3, AFFINE, np.random.default_rng(seed), "liver").signs) == {1}
