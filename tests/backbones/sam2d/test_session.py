"""From a click or box in millimetres to a mask in the scan's voxels, over slices and planes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from umdseg import inference
from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import read_label
from umdseg.errors import UserError
from umdseg.prompts.clicks import first_click
from umdseg.vocabulary import Prompt

CENTRE, RADII = np.array([12.0, -9.0, 15.0]), np.array([16.0, 12.0, 20.0])


def turned(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


GRIDS = {
    "isotropic": (np.diag([2.0, 2.0, 2.0]), (48, 44, 40)),
    "anisotropic": (np.diag([1.5, 1.5, 5.0]), (64, 60, 16)),
    "flipped": (np.diag([-2.0, 2.0, -3.0]), (48, 44, 28)),
    "transposed": (np.array([[0, 0, 3.0], [-2.0, 0, 0], [0, 2.5, 0]]), (44, 34, 32)),
    "oblique": (turned(15) @ np.diag([-2.0, 2.0, 3.0]), (50, 50, 34)),
}


def scan(kind):
    """A CT in HU: the wanted ellipsoid, another bright thing beside it, and the mask of the first."""
    matrix, shape = GRIDS[kind]
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = -matrix @ ((np.array(shape) - 1) / 2)
    grid = Grid(shape, affine)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    world = grid.to_world(index.astype(float))
    wanted = ((((world - CENTRE) / RADII) ** 2).sum(1) <= 1).reshape(shape)
    other = ((((world - [-24.0, 20.0, 15.0]) / 9.0) ** 2).sum(1) <= 1).reshape(shape)
    return Volume(np.where(wanted | other, 200.0, -150.0).astype(np.float32), grid), wanted


def answer(session, name="liver"):
    return torch.cat([part for _, part in session.scores([name])], dim=-1)[0]


def dice(logits, mask):
    found = logits.numpy() > 0
    return 2 * (found & mask).sum() / (found.sum() + mask.sum())


CLICK = Prompt("liver", "point", (tuple(CENTRE),), (1,))
BOX = Prompt("liver", "box", box=(tuple(CENTRE - RADII), tuple(CENTRE + RADII)))


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("planes", [["axial"], ["coronal"], ["sagittal"], ["axial", "coronal", "sagittal"]])
def test_a_click_lands_on_its_structure_in_every_plane(kind, planes, bright) -> None:
    volume, mask = scan(kind)
    session = inference.open(bright(planes=planes), volume, "ct")
    session.prompt([CLICK])
    # pictures of 64 pixels and the interpolation back cost the rest
    assert dice(answer(session), mask) > 0.9


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("how", ["box", "point", "mask"])
def test_masks_lead_from_slice_to_slice(kind, how, bright) -> None:
    volume, mask = scan(kind)
    backbone = bright(propagate=how)
    session = inference.open(backbone, volume, "ct")
    session.prompt([CLICK])
    assert dice(answer(session), mask) > 0.9
    asked = [ask for _, _, ask in backbone.asked[1:]]
    assert all((ask.box is None) == (how == "point") for ask in asked)
    assert all((ask.low is None) == (how != "mask") for ask in asked)
    assert all(len(ask.signs) == (how == "point") for ask in asked)


@pytest.mark.parametrize("kind", GRIDS)
def test_a_box_reaches_to_its_last_slice_and_no_further(kind, bright) -> None:
    volume, mask = scan(kind)
    backbone = bright()
    session = inference.open(backbone, volume, "ct")
    half = Prompt("liver", "box", box=(BOX.box[0], (BOX.box[1][0], BOX.box[1][1], float(CENTRE[2]))))
    session.prompt([half])
    found = answer(session).numpy() > 0
    index = np.argwhere(found | mask)
    above = volume.grid.to_world(index.astype(float))[:, 2] > CENTRE[2] + 3.0 * (kind != "anisotropic") + 2.6
    oblique = kind == "oblique"
    assert oblique or not found[tuple(index[above].T)].any()
    low, high = mask & found, mask & ~found
    assert low.sum() > 0.35 * mask.sum()
    assert oblique or high.sum() > 0.3 * mask.sum()
    session.prompt([BOX])
    assert dice(answer(session), mask) > 0.9


def test_pixels_of_boxes_and_clicks_are_the_voxels_they_name(bright) -> None:
    """On RAS voxels of 2 x 2 x 4 mm, columns of a picture run to the left and rows backwards."""
    volume = Volume(np.zeros((20, 30, 10), np.float32), Grid((20, 30, 10), np.diag([2.0, 2.0, 4.0, 1.0])))
    backbone = bright()
    session = inference.open(backbone, volume, "ct")
    # from voxel 3, 5, 2 to voxel 8, 9, 6, faces included
    corners = ((5.0, 9.0, 6.0), (17.0, 19.0, 26.0))
    session.prompt([Prompt("liver", "box", box=corners)])
    answer(session)
    # slices 2 to 6, from the middle one; nothing is bright, so the box itself goes on being asked
    assert [ask.box for _, _, ask in backbone.asked] == [(11.0, 20.0, 16.0, 24.0)] * 5
    backbone.asked.clear()
    session.prompt([Prompt("liver", "clicks", ((6.0, 10.0, 8.0), (8.0, 12.0, 8.0)), (1, 0))])
    answer(session)
    (asked,) = [ask for _, _, ask in backbone.asked]
    assert sorted(zip(asked.points.tolist(), asked.signs, strict=True)) == [
        ([15.0, 23.0], 0),
        ([16.0, 24.0], 1),
    ]


def test_walks_end_where_the_mask_vanishes(bright) -> None:
    volume, mask = scan("anisotropic")
    backbone = bright()
    session = inference.open(backbone, volume, "ct")
    session.prompt([CLICK])
    logits = answer(session)
    shown = int(mask.any(axis=(0, 1)).sum())
    # one slice more on either side, which showed that there was nothing
    assert len(backbone.asked) == shown + 2 == backbone.embedded
    assert int((logits > -9).any(dim=0).any(dim=0).sum()) == shown + 2
    assert bool((logits[..., 0] == -10).all())


def test_every_slice_is_embedded_once_while_memory_allows(bright) -> None:
    volume, _ = scan("anisotropic")
    kept, forgetful = bright(), bright(cached_mb=0)
    for backbone in (kept, forgetful):
        session = inference.open(backbone, volume, "ct")
        session.prompt([CLICK])
        first = answer(session)
        once = backbone.embedded
        session.prompt([BOX])
        answer(session)
        assert (backbone.embedded == once) == (backbone is kept)
        asked = len(backbone.asked)
        session.undo()
        assert torch.equal(answer(session), first)
        assert len(backbone.asked) > asked
        session.undo()
        with pytest.raises(UserError, match="no 'auto' prompts"):
            answer(session)


def test_clicks_on_other_slices_correct_them(bright) -> None:
    volume, _ = scan("isotropic")
    backbone = bright()
    session = inference.open(backbone, volume, "ct")
    away = (float(CENTRE[0]), float(CENTRE[1]), float(CENTRE[2] + 8))
    session.prompt([Prompt("liver", "clicks", (tuple(CENTRE), away), (1, 0))])
    answer(session)
    assert [ask.signs for _, _, ask in backbone.asked if ask.signs] == [(1,), (0,)]
    assert sum(ask.box is not None and ask.signs == (0,) for _, _, ask in backbone.asked) == 1
    # two keys: the slices between them are reached from both, none is a key's own again
    backbone.asked.clear()
    session.prompt([Prompt("liver", "clicks", (tuple(CENTRE), away), (1, 1))])
    answer(session)
    assert [ask.signs for _, _, ask in backbone.asked if ask.signs] == [(1,), (1,)]


def test_of_several_planes_the_mean_counts(bright) -> None:
    volume, _ = scan("flipped")
    names = ["axial", "coronal", "sagittal"]
    found = []
    for planes in (*([name] for name in names), names):
        session = inference.open(bright(planes=planes), volume, "ct")
        session.prompt([CLICK])
        found.append(answer(session))
    torch.testing.assert_close(found[3], torch.stack(found[:3]).mean(dim=0), rtol=0, atol=1e-4)
    assert not torch.equal(found[0], found[1])


def test_prompts_beside_the_scan_find_nothing(bright) -> None:
    volume, _ = scan("isotropic")
    session = inference.open(bright(), volume, "ct")
    far = Prompt("spleen", "point", ((500.0, 0.0, 0.0),), (1,))
    session.prompt([far, CLICK, Prompt("aorta", "box", box=((300.0, 0.0, 0.0), (320.0, 9.0, 9.0)))])
    for _, part in session.scores(["spleen", "aorta"]):
        assert bool((part == -10).all())
    with pytest.raises(UserError, match="no 'text' prompts"):
        session.prompt([Prompt("liver", "text", text="liver")])
    with pytest.raises(UserError, match="has no box"):
        session.prompt([Prompt("liver", "box")])


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_click_on_a_real_liver_lands_on_it(plane, bright, shared_data) -> None:
    """The reference labels of a real CT in the place of its image."""
    folder = shared_data / "totalsegmentator"
    labels = read_label(folder / "example_seg.nii.gz")
    names = json.loads((folder / "class_ids.json").read_text())["total"]
    mask = labels.array == next(int(i) for i, name in names.items() if name == "liver")
    session = inference.open(
        bright(planes=[plane]), Volume(np.where(mask, 200.0, -150.0).astype(np.float32), labels.grid), "ct"
    )
    session.prompt([Prompt("liver", "point", (first_click([(mask, labels.grid)], labels.grid),), (1,))])
    assert dice(answer(session), mask) > 0.9
