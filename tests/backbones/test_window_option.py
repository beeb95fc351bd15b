"""model.window: another window than the card's, in training and inference alike, or a clear refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from umdseg import inference, load_backbone
from umdseg.adapters import AdapterCard, build, load_adapter
from umdseg.adapters.lora import LoraOptions
from umdseg.backbones.sam3d_cards import sam_med3d_turbo_card
from umdseg.backbones.vista3d_cards import vista3d_card, vista3d_tiny_card
from umdseg.backbones.windows import windowed
from umdseg.data.geometry import Grid, Volume
from umdseg.errors import UserError
from umdseg.fusion import build as fuse
from umdseg.fusion import load_fusion, save_fusion
from umdseg.fusion.late import LateOptions
from umdseg.inference import preprocessing
from umdseg.vocabulary import Prompt


def test_everything_that_goes_by_the_card_goes_by_the_window() -> None:
    backbone = load_backbone("vista3d_tiny", "random", window=(24, 32, 16))
    assert backbone.training_window == backbone.card.window == (24, 32, 16)
    # volumes are padded up to one window, and windows are that large
    assert preprocessing(backbone.card).min_shape == (24, 32, 16)
    seen: list[tuple[int, ...]] = []
    backbone.net.get_submodule(backbone.card.stem).register_forward_pre_hook(
        lambda _, inputs: seen.append(tuple(inputs[0].shape[2:]))
    )
    scan = Volume(np.full((30, 20, 10), 40.0, np.float32), Grid((30, 20, 10), np.diag([6.0, 6, 6, 1])))
    session = inference.open(backbone, scan, "ct")
    session.prompt([Prompt("liver")])
    (_, logits), *rest = session.scores(["liver"])
    assert logits.shape[1:3] == (30, 20)
    assert not rest
    assert set(seen) == {(24, 32, 16)}


def test_the_cards_own_window_changes_nothing() -> None:
    card = vista3d_tiny_card()
    assert windowed(card, None) is card
    assert windowed(card, list(card.window)) is card
    plain, same = load_backbone("vista3d_tiny"), load_backbone("vista3d_tiny", window=(72, 48, 64))
    assert plain.card == same.card
    assert plain.state_sha256 == same.state_sha256


@pytest.mark.parametrize(
    ("card", "window", "words"),
    [
        (vista3d_card(), (100, 96, 96), "three multiples of 16"),
        (vista3d_card(), (96, 96), "three multiples of 16"),
        (vista3d_card(), (0, 96, 96), "three multiples of 16"),
        (sam_med3d_turbo_card(), (256, 128, 128), "128, 128, 128] and no other"),
    ],
)
def test_windows_that_do_not_fit_are_refused(card, window, words: str) -> None:
    with pytest.raises(UserError) as caught:
        windowed(card, window)
    assert caught.value.where == "model.window"
    assert words in (caught.value.expected or "")


def test_saved_parts_name_the_window_they_were_trained_on(tmp_path: Path) -> None:
    def model(window):
        torch.manual_seed(0)
        return load_backbone("vista3d_tiny", window=window)

    small = model((24, 24, 32))
    adapter = build(LoraOptions(rank=2))
    adapter.inject(small)
    adapter.save(tmp_path / "adapter", small, AdapterCard.describe(small))
    load_adapter(tmp_path / "adapter", model((24, 24, 32)))
    with pytest.raises(UserError, match=r"another window"):
        load_adapter(tmp_path / "adapter", model(None))
    save_fusion(fuse(LateOptions(), model((24, 24, 32)), ["ct", "pet"]), tmp_path / "fusion")
    assert load_fusion(tmp_path / "fusion", model((24, 24, 32))).card.window == (24, 24, 32)
    with pytest.raises(UserError, match=r"another window"):
        load_fusion(tmp_path / "fusion", model(None))


def test_a_network_from_scratch_takes_null_as_its_default() -> None:
    small = {"width": 4, "max_width": 8, "levels": 3}
    assert load_backbone("unet", "random", window=None, **small).card.window == (128, 128, 128)
    with pytest.raises(UserError, match=r"window"):
        load_backbone("unet", "random", window=(30, 32, 32), **small)
