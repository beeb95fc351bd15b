"""The common field of view against closed forms and a point-by-point count; reference grid policies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from umdseg.data.fov import Reference, common_box, common_field, common_mask
from umdseg.data.geometry import Grid
from umdseg.errors import UserError
from umdseg.vocabulary import UNITS, Scan, Subject


def grid(shape, spacing, centre=(0.0, 0.0, 0.0), angles=(0, 0, 0), flips=(1, 1, 1)) -> Grid:
    affine = np.eye(4)
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = axes @ np.diag(np.array(spacing) * flips)
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


CT = grid((40, 30, 50), (2.0, 2.0, 3.0))  # x -40..40, y -30..30, z -75..75
PET = grid((20, 20, 20), (4.0, 4.0, 4.0), (10, 0, 60), flips=(-1, -1, 1))  # x -30..50, y -40..40, z 20..100
OBLIQUE = grid((30, 30, 30), (2.0, 2.0, 2.0), (5, 0, 10), (20, -15, 30))


def subject(*modalities: str) -> Subject:
    return Subject("p1", {m: Scan(Path(f"{m}.nii"), m, UNITS[m]) for m in modalities})  # type: ignore[arg-type,index]


def brute(target: Grid, grids: list[Grid]) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), -1).reshape(-1, 3)
    world = target.to_world(index)
    inside = np.ones(len(world), dtype=bool)
    for one in grids:
        place = one.to_index(world)
        # the field reaches half a voxel beyond the outer centres; 0.1 mm of slack as everywhere
        slack = 0.1 / np.array(one.spacing)
        inside &= ((place >= -0.5 - slack) & (place <= np.array(one.shape) - 0.5 + slack)).all(axis=1)
    return inside.reshape(target.shape)


def test_two_parallel_scans_share_the_box_between_their_faces() -> None:
    found = common_field(CT, [CT, PET])
    assert found is not None
    low, high = common_box([CT, PET])
    np.testing.assert_allclose(low, (-30, -30, 20), atol=1e-6)
    np.testing.assert_allclose(high, (40, 30, 75), atol=1e-6)
    # CT centres at -29 ... 39, -29 ... 29; z centres -73.5 + 3 k from 22.5 (19.5 is outside) to 73.5
    assert found.grid.shape == (35, 30, 18)
    assert found.inside.all()
    np.testing.assert_allclose(found.grid.to_world(np.zeros((1, 3)))[0], (-29, -29, 22.5))
    assert found.share_of(CT) == pytest.approx(35 * 30 * 18 / (40 * 30 * 50))


@pytest.mark.parametrize("target", [CT, PET, OBLIQUE], ids=["ct", "pet", "oblique"])
def test_mask_equals_a_count_point_by_point(target: Grid) -> None:
    grids = [CT, PET, OBLIQUE]
    mask = common_mask(target, grids)
    assert 0 < mask.sum() < mask.size
    np.testing.assert_array_equal(mask, brute(target, grids))
    found = common_field(target, grids)
    assert found is not None
    assert found.inside.sum() == mask.sum()
    np.testing.assert_array_equal(mask[found.grid.within(target)], found.inside)


def test_box_of_oblique_scans_holds_every_common_point_and_no_more() -> None:
    low, high = common_box([CT, OBLIQUE])
    fine = grid((90, 90, 90), (1.0, 1.0, 1.0), (5, 0, 10))
    points = fine.to_world(np.argwhere(brute(fine, [CT, OBLIQUE])))
    assert (points.min(axis=0) >= low - 0.2).all()
    assert (points.max(axis=0) <= high + 0.2).all()
    # corners of a polytope are sharp: points on a 1 mm lattice come within a few millimetres
    assert (points.min(axis=0) <= low + 3).all()
    assert (points.max(axis=0) >= high - 3).all()


def test_scans_that_do_not_meet_share_nothing() -> None:
    far = grid((10, 10, 10), (2.0, 2.0, 2.0), (500, 0, 0))
    assert common_field(CT, [CT, far]) is None
    assert common_box([CT, far]) is None
    with pytest.raises(UserError, match="share no place") as caught:
        Reference("card", (1.5, 1.5, 1.5)).grid(subject("ct", "pet"), {"ct": CT, "pet": far})
    assert "p1" in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "has", "chosen"),
    [
        ("ct", ("ct", "pet", "mr"), "ct"),
        ("pet", ("ct", "pet", "mr"), "pet"),
        ("mr", ("ct", "pet"), "ct"),
        ("ct", ("pet", "mr"), "mr"),
        ("ct", ("pet",), "pet"),
        ("pet", ("ct", "mr"), "ct"),
        ("card", ("pet", "mr"), "mr"),
    ],
)
def test_the_policy_falls_back_to_ct_mr_pet(policy: str, has: tuple[str, ...], chosen: str) -> None:
    assert Reference(policy).modality(subject(*has)) == chosen
    if policy != "card":
        grids = {m: g for m, g in (("ct", CT), ("pet", PET), ("mr", OBLIQUE)) if m in has}
        assert Reference(policy).grid(subject(*has), grids) is grids[chosen]


def test_card_grid_is_the_cards_spacing_over_the_common_field() -> None:
    found = Reference("card", (1.5, 2.0, 5.0)).grid(subject("ct", "pet"), {"ct": CT, "pet": PET})
    np.testing.assert_allclose(found.affine[:3, :3], np.diag((1.5, 2.0, 5.0)))
    faces = found.to_world(np.array([[-0.5] * 3, np.array(found.shape) - 0.5]))
    np.testing.assert_allclose(faces[0], (-30, -30, 20), atol=1e-6)
    over = faces[1] - np.array((40, 30, 75))
    assert (over > -1e-2).all()
    assert (over < (1.5, 2.0, 5.0)).all()
