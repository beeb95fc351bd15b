"""The folder, the card, and single windows."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch

pytest.importorskip("nnInteractive.inference.inference_session")

from umdseg.backbones import load_backbone
from umdseg.backbones.nninteractive.model import NninteractiveOptions, nninteractive
from umdseg.backbones.nninteractive.steps import Step, steps
from umdseg.data.geometry import Grid
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt


def load(folder, weights=None):
    options = NninteractiveOptions(name="nninteractive", folder=str(folder), weights=weights)
    return nninteractive(options).eval()


def test_the_card_is_the_folders(folder):
    backbone = load(folder)
    card = backbone.card
    assert (card.window, card.divisor, card.spacing, card.orientation) == ((56, 56, 56), 2, None, "SAR")
    assert card.weights.licence == "CC BY-NC-SA 4.0"
    assert card.weights.commercial is False
    assert (card.output, card.prompts) == (
        "mask",
        ("point", "clicks", "box", "lasso", "scribble"),
    )
    modules = dict(backbone.net.named_modules())
    assert modules[card.stem].in_channels == 8
    assert [name for name in modules if re.fullmatch(card.adapter_targets, name)]
    assert not backbone.random_weights
    assert backbone.knows("anything")
    listing = nninteractive.listing()
    assert (listing.card, listing.prompts, listing.output) == (None, card.prompts, card.output)


def test_a_licence_file_is_believed(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "LICENSE").write_text("Apache-2.0\nmore\n")
    assert load(copy).card.weights.licence == "Apache-2.0"
    assert load(copy).card.weights.commercial is None


def test_windows_are_what_the_packages_session_shows_its_network(folder):
    """Both clicks in the middle of an image of one window: nothing to crop, pad or zoom."""
    from nnInteractive.inference.inference_session import nnInteractiveInferenceSession

    edge = 56
    image = np.random.default_rng(0).normal(30, 200, (edge, edge, edge)).astype(np.float32)
    engine = nnInteractiveInferenceSession(
        device=torch.device("cpu"), torch_n_threads=1, do_autozoom=False, interactions_storage="tensor"
    )
    engine.initialize_from_trained_model_folder(str(folder))
    engine.set_image(image[None])
    engine.set_target_buffer(torch.zeros(image.shape, dtype=torch.uint8))
    for inside in (True, False):
        engine.add_point_interaction((28, 28, 28), include_interaction=inside)
    scaled = torch.from_numpy(image - image.mean())[None, None] / float(image.std(ddof=1))
    backbone = load(folder)
    points = ((28.0, 28.0, 28.0), (28.0, 28.0, 28.0))
    with torch.no_grad():
        logits = backbone.decode(
            backbone.encode(scaled), [Prompt("liver", "clicks", points, (1, 0)), Prompt("x", "point")]
        )
    assert logits.shape == (1, 2, edge, edge, edge)
    different = (logits[0, 0] > 0) != (engine.target_buffer > 0)
    # float16 interactions there, float32 here
    assert int(different.sum()) <= 5
    assert 1000 < int((logits[0, 0] > 0).sum()) < edge**3 - 1000
    assert bool((logits[0, 1] == -10).all())


def test_gradients_reach_the_network(folder):
    backbone = load(folder)
    prompt = Prompt("liver", "clicks", ((8.0, 8.0, 8.0), (2.0, 2.0, 2.0)), (1, 0))
    image = torch.rand(2, 1, 16, 16, 16)
    backbone.decode(backbone.encode(image), [prompt]).sum().backward()
    assert all(
        p.grad is not None and bool(p.grad.any())
        for name, p in backbone.net.named_parameters()
        if re.search(r"stem.*conv\.weight", name)
    )


def test_boxes_and_clicks_become_steps_on_the_grid():
    grid = Grid((10, 12, 14), np.array([[0, 2.0, 0, 5], [0, 0, 1, 0], [-1.0, 0, 0, 3], [0, 0, 0, 1]]))
    # x of the patient along the second axis, y along the third, z down the first
    low, high = (9.0, 3.0, -2.0), (15.0, 7.0, 2.0)
    prompt = Prompt("liver", "box", ((5.0, 0.0, 3.0), (900.0, 0.0, 0.0)), (0, 1), box=(low, high))
    click = Step("point", (0, 0, 0), (1, 1, 1), inside=False)
    assert steps(prompt, grid, solid=True) == [Step("box", (1, 2, 3), (6, 6, 8)), click]
    assert steps(prompt, grid, solid=False) == [Step("box", (3, 2, 3), (4, 6, 8)), click]
    # a box that is a rectangle stays one, whichever way it lies; between two slices the nearer counts
    flat = Prompt("liver", "box", box=((9.0, 4.4, -2.0), (15.0, 4.4, 2.0)))
    assert steps(flat, grid, solid=False) == [Step("box", (1, 2, 4), (6, 6, 5))]
    assert steps(Prompt("liver", "box", box=((900.0, 0, 0), (901.0, 1, 1))), grid, solid=True) == []


def test_other_interactions_than_the_published_ones(write, tmp_path):
    info = {
        "point_radius": 3,
        "interaction_decay": 0.98,
        "supported_interactions": {"bbox3d": True, "lasso": False},
    }
    backbone = load(write(tmp_path / "model", info=info))
    assert backbone.solid_boxes
    assert backbone.card.prompts == ("point", "clicks", "box", "scribble")
    assert backbone.artifacts["interaction_decay"] == 0.98
    with pytest.raises(UserError, match="which interactions"):
        load(write(tmp_path / "odd", info={"supported_interactions": {"telepathy": True}}))


def test_random_weights_say_so(folder):
    backbone = load_backbone("nninteractive", "random", folder=str(folder))
    assert backbone.random_weights
    assert backbone.weights_sha256 is None
    with pytest.raises(UserError, match="none is given"):
        load_backbone("nninteractive", "random")


class Code:
    def __reduce__(self):
        return print, ("never",)


def test_weights_that_are_wrong_are_refused(folder, write, tmp_path, capsys):
    with pytest.raises(UserError, match="pickled code"):
        load(write(tmp_path / "code", init_args={"configuration": Code()}))
    assert "never" not in capsys.readouterr().out
    few = write(tmp_path / "few", network_weights={"encoder.stem.convs.0.conv.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="another network"):
        load(few)
    with pytest.raises(UserError, match="no configuration"):
        load(write(tmp_path / "other", init_args={"configuration": "3d_lowres"}))
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "inference_session_class.json").unlink()
    with pytest.raises(UserError, match=r"inference_info\.json"):
        load(copy)
    two = shutil.copytree(folder, tmp_path / "two")
    shutil.copytree(two / "fold_0", two / "fold_1")
    with pytest.raises(UserError, match="2 folds"):
        load(two)
    assert not load(two, str(two / "fold_1" / "checkpoint_final.pth")).random_weights
    with pytest.raises(UserError, match="no nnU-Net model"):
        load(tmp_path / "nowhere")


def test_downloads_ask_for_the_terms_first(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("NNINTERACTIVE_MODEL_DIR", str(tmp_path))
    options = NninteractiveOptions(name="nninteractive")
    with pytest.raises(UserError, match="CC BY-NC-SA"):
        nninteractive(options)
    assert nninteractive.listing().cached() is None
    options.accept_licence = True
    # offline (tests/conftest.py)
    with pytest.raises(UserError, match="nnInteractive"):
        nninteractive(options)
    # the package's own copy, once it is there
    shutil.copytree(folder, tmp_path / "models" / "nnInteractive_v1.0")
    assert not nninteractive(NninteractiveOptions(name="nninteractive")).random_weights
    assert nninteractive.listing().cached() == tmp_path / "models" / "nnInteractive_v1.0"
