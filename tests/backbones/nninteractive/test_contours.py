"""Lassos and scribbles: the package's session receives them where they were drawn, and answers the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("nnInteractive.inference.inference_session")

from nnInteractive.inference.inference_session import nnInteractiveInferenceSession

from umdseg import inference
from umdseg.backbones.nninteractive.model import NninteractiveOptions, nninteractive
from umdseg.data.geometry import Grid, Volume
from umdseg.errors import UserError
from umdseg.vocabulary import Contour, Prompt

SHAPE = (30, 26, 22)
TURN = np.array([[0.94, -0.342, 0], [0.342, 0.94, 0], [0, 0, 1]])
AXES = {
    "flipped": np.diag([-1.4, 0.9, 3.0]),
    "permuted": np.array([[0, 0, -2.0], [1.2, 0, 0], [0, 1.5, 0]]),
    "oblique": TURN @ np.diag([1.1, -1.3, 2.5]),
}
# a triangle on the third axis's slice 9, and which of its voxels lie inside: x >= 6, y >= 5, x + y <= 24
TRIANGLE = np.array([[5.6, 4.6, 9.2], [19.8, 4.6, 9.2], [5.6, 18.8, 9.2]])


def load(folder):
    return nninteractive(
        NninteractiveOptions(name="nninteractive", folder=str(folder), autozoom=False)
    ).eval()


def scan(axes):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, (30.0, -20.0, 100.0)
    noise = np.random.default_rng(3).normal(0, 300, SHAPE)
    return Volume((noise + 40).astype(np.int16), Grid(SHAPE, affine))


def triangle():
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return (x >= 6) & (y >= 5) & (x + y <= 24) & (z == 9)


def stroke(thickness):
    """Voxels of slice 12 across the third axis, half a thickness or less from (4, 6) - (20, 6) - (20, 12)."""
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    distance = np.minimum(np.hypot(x - np.clip(x, 4, 20), y - 6.0), np.hypot(x - 20.0, y - np.clip(y, 6, 12)))
    return (distance <= thickness / 2) & (z == 12)


def contour(volume, corners, **more):
    return Contour(tuple(tuple(map(float, row)) for row in volume.grid.to_world(np.array(corners))), **more)


def line(volume, **more):
    return contour(volume, [[4.0, 6.0, 12.0], [20.0, 6.0, 12.0], [20.0, 12.0, 12.0]], closed=False, **more)


def official(folder, volume):
    """The package as its authors show it, fed whole masks in (z, y, x)."""
    session = nnInteractiveInferenceSession(
        device=torch.device("cpu"), torch_n_threads=1, do_autozoom=False, interactions_storage="tensor"
    )
    session.initialize_from_trained_model_folder(str(folder))
    session.set_image(volume.array.transpose(2, 1, 0)[None].astype(np.float32))
    session.set_target_buffer(torch.zeros(volume.array.shape[::-1], dtype=torch.uint8))
    return session


def mask(session, name="liver"):
    return torch.cat([part for _, part in session.scores([name])], dim=-1)[0].numpy() > 0


@pytest.mark.parametrize("axes", AXES)
def test_lasso_scribble_and_click_in_turn_give_the_mask_of_the_packages_own_session(folder, axes):
    volume = scan(AXES[axes])
    theirs, ours = official(folder, volume), inference.open(load(folder), volume, "ct")
    lasso, scribble = contour(volume, TRIANGLE), line(volume, sign=0)
    click = tuple(map(float, volume.grid.to_world(np.array([[8.0, 7.0, 9.0]]))[0]))
    told = [
        (theirs.add_lasso_interaction, triangle(), True, Prompt("liver", "lasso", contours=(lasso,))),
        (theirs.add_scribble_interaction, stroke(2), False,
         Prompt("liver", "lasso", contours=(lasso, scribble))),
        (None, None, True, Prompt("liver", "lasso", (click,), (1,), contours=(lasso, scribble))),
    ]  # fmt: skip
    for add, drawn, inside, prompt in told:
        if add is None:
            theirs.add_point_interaction((9, 7, 8), include_interaction=True)
        else:
            add(np.ascontiguousarray(drawn.transpose(2, 1, 0), dtype=np.uint8), include_interaction=inside)
        ours.prompt([prompt])
        expected = theirs.target_buffer.numpy().transpose(2, 1, 0) > 0
        assert 50 < expected.sum() < expected.size - 50, "the random network says something"
        assert np.array_equal(mask(ours), expected)
    # what the two sessions hold of it: the same voxels in the same channels
    assert torch.equal(ours._engine.interactions, theirs.interactions)


def test_thickness_is_that_of_the_axis_across_the_slice(write, tmp_path):
    """The third axis of the scan is the package's first."""
    info = {"preferred_scribble_thickness": [4, 1, 1]}
    backbone, volume = load(write(tmp_path / "model", info=info)), scan(AXES["oblique"])
    session = inference.open(backbone, volume, "ct")
    session.prompt([Prompt("liver", "scribble", contours=(line(volume),))])
    mask(session)
    channel = session._engine.interactions[backbone.channels["scribble"][0]].numpy() > 0
    assert np.array_equal(channel.transpose(2, 1, 0), stroke(4))


def test_windows_see_contours_as_the_packages_session_shows_them(folder):
    """A scan of one window, both contours around its middle: nothing to crop, pad or zoom."""
    edge, backbone = 56, load(folder)
    image = np.random.default_rng(0).normal(30, 200, (edge, edge, edge)).astype(np.float32)
    volume = Volume(image, Grid((edge, edge, edge), np.eye(4)))
    square = contour(volume, [[20, 22, 28], [36, 22, 28], [36, 34, 28], [20, 34, 28]])
    across = contour(volume, [[22.0, 28, 28], [34.0, 28, 28]], closed=False, sign=0)
    prompt = Prompt("liver", "scribble", contours=(square, across))
    session = inference.open(backbone, volume, "ct")
    session.prompt([prompt])
    scaled = torch.from_numpy(image - image.mean())[None, None] / float(image.std(ddof=1))
    # the package's axes: z, y, x
    turned = torch.tensor([[0, 0, 1.0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]).double()
    with torch.no_grad():
        features = backbone.encode(scaled.permute(0, 1, 4, 3, 2), turned[None])
        logits = backbone.decode(features, [prompt])[0, 0].permute(2, 1, 0)
    different = (logits.numpy() > 0) != mask(session)
    assert 1000 < (logits > 0).sum() < edge**3 - 1000
    # float16 interactions there, float32 here
    assert different.sum() <= 5


def test_a_correction_runs_only_what_is_new(folder):
    backbone, volume = load(folder), scan(AXES["flipped"])
    session = inference.open(backbone, volume, "ct")
    lasso, scribble = contour(volume, TRIANGLE), line(volume)
    session.prompt([Prompt("liver", "lasso", contours=(lasso,))])
    first = mask(session)
    passes = []
    backbone.net.register_forward_hook(lambda *_: passes.append(1))
    session.prompt([Prompt("liver", "lasso", contours=(lasso, scribble))])
    assert not np.array_equal(mask(session), first)
    assert len(passes) == 1
    session.undo()
    assert np.array_equal(mask(session), first)


def test_contours_outside_the_scan_and_without_a_plane(folder):
    volume = scan(AXES["oblique"])
    session = inference.open(load(folder), volume, "ct")
    session.prompt([Prompt("liver", "lasso", contours=(contour(volume, np.add(TRIANGLE, (0, 0, 500))),))])
    assert not mask(session).any()
    bent = contour(volume, [*TRIANGLE, [19.8, 18.8, 12.0]])
    with pytest.raises(UserError, match="lasso of liver lies in no plane"):
        session.prompt([Prompt("liver", "lasso", contours=(bent,))])
    with pytest.raises(UserError, match="has no scribble"):
        session.prompt([Prompt("liver", "scribble")])
