"""Whole scans: the package's own session gives the same mask, and clicks land where they are."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

pytest.importorskip("nnInteractive.inference.inference_session")

from nnInteractive.inference.inference_session import nnInteractiveInferenceSession

from umdseg import inference
from umdseg.backbones.nninteractive.model import NninteractiveOptions, nninteractive
from umdseg.data.geometry import Grid, Volume, reoriented
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

AFFINE = np.array([[-1.4, 0, 0, 30.0], [0, 0.9, 0, -20.0], [0, 0, 3.0, 100.0], [0, 0, 0, 1]])
SHAPE = (30, 26, 22)


def load(folder, autozoom=False):
    options = NninteractiveOptions(name="nninteractive", folder=str(folder), autozoom=autozoom)
    return nninteractive(options).eval()


@pytest.fixture
def volume():
    """Soft blobs, so that neighbouring windows differ."""
    noise = np.random.default_rng(3).normal(0, 300, SHAPE)
    return Volume((noise + 40).astype(np.int16), Grid(SHAPE, AFFINE))


def official(folder, volume, autozoom=False):
    """The package as its authors show it: a SimpleITK-like (z, y, x) array, its own loading."""
    session = nnInteractiveInferenceSession(
        device=torch.device("cpu"), torch_n_threads=1, do_autozoom=autozoom
    )
    session.initialize_from_trained_model_folder(str(folder))
    session.set_image(volume.array.transpose(2, 1, 0)[None].astype(np.float32))
    session.set_target_buffer(torch.zeros(volume.array.shape[::-1], dtype=torch.uint8))
    return session


def world(volume, *voxels):
    return tuple(tuple(float(v) for v in row) for row in volume.grid.to_world(np.array(voxels, float)))


def mask(session, name="liver", grid=None):
    return torch.cat([part for _, part in session.scores([name], grid)], dim=-1)[0]


@pytest.mark.parametrize("autozoom", [False, True])
def test_clicks_in_turn_give_the_mask_of_the_packages_own_session(folder, volume, autozoom):
    clicks, signs = [(20, 7, 15), (22, 9, 12), (5, 20, 4)], (1, 0, 1)
    theirs = official(folder, volume, autozoom)
    ours = inference.open(load(folder, autozoom), volume, "ct")
    for count in (1, 2) if autozoom else (1, 2, 3):
        x, y, z = clicks[count - 1]
        theirs.add_point_interaction((z, y, x), include_interaction=bool(signs[count - 1]))
        points = world(volume, *clicks[:count])
        ours.prompt([Prompt("liver", "clicks", points, signs[:count])])
        expected = theirs.target_buffer.numpy().transpose(2, 1, 0) > 0
        assert 50 < expected.sum() < expected.size - 50, "the random network says something"
        found = mask(ours)
        assert set(found.unique().tolist()) == {-10.0, 10.0}
        assert np.array_equal(found.numpy() > 0, expected)


def test_a_box_then_clicks_give_the_mask_of_the_packages_own_session(folder, volume):
    theirs = official(folder, volume)
    # voxels 6-14, 8-17, 5-12; the middle axial slice is 8
    theirs.add_bbox_interaction([[8, 9], [8, 18], [6, 15]], include_interaction=True)
    theirs.add_point_interaction((9, 10, 11), include_interaction=False)
    ours = inference.open(load(folder), volume, "ct")
    low, high = world(volume, (14, 8, 5), (6, 17, 12))
    ours.prompt([Prompt("liver", "box", world(volume, (11, 10, 9)), (0,), box=(low, high))])
    expected = theirs.target_buffer.numpy().transpose(2, 1, 0) > 0
    assert 50 < expected.sum() < expected.size - 50
    assert np.array_equal(mask(ours).numpy() > 0, expected)


def test_structures_do_not_leak_and_undo_replays(folder, volume):
    backbone = load(folder)
    session = inference.open(backbone, volume, "pet")
    liver = Prompt("liver", "point", world(volume, (20, 7, 15)), (1,))
    spleen = Prompt("spleen", "point", world(volume, (6, 18, 6)), (1,))
    session.prompt([liver, spleen])
    both = torch.cat([part for _, part in session.scores(["spleen", "liver"])], dim=-1)
    for prompt, found in ((spleen, both[0]), (liver, both[1])):
        alone = inference.open(backbone, volume, "pet")
        alone.prompt([prompt])
        assert torch.equal(mask(alone, prompt.structure), found)
    assert not torch.equal(both[0], both[1])
    session.prompt([replace(liver, kind="clicks", points=(*liver.points, *spleen.points), signs=(1, 0))])
    assert not torch.equal(mask(session), both[1])
    session.undo()
    assert torch.equal(mask(session), both[1])


def oblique(spacing, degrees, flips):
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ np.diag(np.array(flips) * spacing)
    affine[:3, 3] = (37.0, -112.0, 410.0)
    return affine


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (0.8, 1.1, 4.0)])
@pytest.mark.parametrize("degrees", [0, 25])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_a_click_lands_on_its_structure(folder, spacing, degrees, flips):
    """A network that gives back bright voxels near the click channel finds the clicked blob alone."""
    backbone = load(folder)
    grid = Grid(SHAPE, oblique(spacing, degrees, flips))
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    places = grid.to_world(np.array([[20, 7, 15], [7, 18, 6]], float))
    near = [
        np.linalg.norm(grid.to_world(index.reshape(-1, 3).astype(float)) - place, axis=1) < 2 * max(spacing)
        for place in places
    ]
    blobs = [one.reshape(SHAPE) for one in near]
    scan = Volume(np.where(blobs[0] | blobs[1], 900, -900).astype(np.int16), grid)
    backbone.net = Bright()
    session = inference.open(backbone, scan, "ct")
    session.prompt([Prompt("liver", "point", (tuple(places[0]),), (1,))])
    found = mask(session).numpy() > 0
    assert found[20, 7, 15]
    assert not (found & ~blobs[0]).any()
    # and on a reference's own grid, in another orientation
    other = reoriented(grid, "PSR")
    elsewhere = mask(session, grid=other).numpy() > 0
    again = nib.orientations.apply_orientation(
        found, nib.orientations.ornt_transform(nib.io_orientation(grid.affine), axes("PSR"))
    )
    assert np.array_equal(elsewhere, again)


def axes(codes):
    return nib.orientations.axcodes2ornt(codes)


class Bright(torch.nn.Module):
    """Object where the image is bright and the channel of positive clicks is not empty."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        inside = (x[:, 0] > 0) & (x[:, 1 + 3] > 0)
        return torch.stack([~inside, inside], dim=1).float()


def test_points_outside_the_scan_and_images_without_contrast(folder, volume):
    backbone = load(folder)
    session = inference.open(backbone, volume, "ct")
    session.prompt([Prompt("liver", "point", ((5000.0, 0.0, 0.0),), (1,))])
    assert bool((mask(session) == -10).all())
    with pytest.raises(UserError, match="one value"):
        inference.open(backbone, Volume(np.full(SHAPE, 7.0), volume.grid), "ct")
    with pytest.raises(UserError, match="no 'auto' prompts"):
        mask(session, "spleen")
    with pytest.raises(UserError, match="precision"):
        inference.open(backbone, volume, "ct", precision="fp8")


def test_nothing_global_changes_and_nothing_is_printed(folder, volume, capfd):
    torch.set_num_threads(1)
    benchmark = torch.backends.cudnn.benchmark
    session = inference.open(load(folder), volume, "ct")
    session.prompt([Prompt("liver", "point", world(volume, (20, 7, 15)), (1,))])
    mask(session)
    assert torch.get_num_threads() == 1
    assert torch.backends.cudnn.benchmark == benchmark
    assert capfd.readouterr().out == ""


def test_bfloat16_is_close_to_float32(folder, volume):
    backbone, found = load(folder), []
    for precision in ("fp32", "bf16", "auto"):
        session = inference.open(backbone, volume, "ct", precision=precision)
        session.prompt([Prompt("liver", "point", world(volume, (20, 7, 15)), (1,))])
        found.append(mask(session) > 0)
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert float((found[0] == found[1]).float().mean()) > 0.9
