"""SAM-Med3D against medim's own modules, called as the authors' scripts call them."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from umdseg import load_backbone
from umdseg.backbones import Backbone, sam3d, weights
from umdseg.backbones.options import ModelOptions
from umdseg.backbones.sam3d_cards import ATTENTION, PARAMETERS, sam_med3d_turbo_card
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

pytest.importorskip("medim")

EDGE = 32


def network(windowed: bool = False) -> Any:
    """The official architecture, narrow, for 32 voxels; every tensor random."""
    from medim.models.sam_med3d import build_sam3D_vit_b_ori

    net = build_sam3D_vit_b_ori(
        encoder_embed_dim=24,
        encoder_depth=2,
        encoder_num_heads=2,
        encoder_global_attn_indexes=[1] if windowed else [0, 1],
        prompt_embed_dim=48,
        image_size=EDGE,
    )
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    return net.eval()


@pytest.fixture
def backbone(monkeypatch: pytest.MonkeyPatch) -> Backbone:
    monkeypatch.setattr(sam3d, "build_network", network)
    made = load_backbone("sam_med3d_turbo", "random")
    assert made.card.window == (EDGE, EDGE, EDGE)
    return made


def image(batch: int = 1) -> torch.Tensor:
    return 300 * torch.randn(batch, 1, EDGE, EDGE, EDGE, generator=torch.Generator().manual_seed(1)) + 100


def affine(*mm: float) -> torch.Tensor:
    return torch.diag(torch.tensor([*mm, 1.0], dtype=torch.float64))[None]


def official(net: Any, x: torch.Tensor, clicks: list[tuple[tuple[int, int, int], int]]) -> torch.Tensor:
    """Logits (X, Y, Z) as medim_infer.py and validation.py of uni-medical/SAM-Med3D get them.

    The window's voxels above 0 give mean and (unbiased) standard deviation; each step gets one new click and
    the low-resolution logits of the step before, zeros at first.
    """
    voxels = x.numpy()
    seen = voxels[voxels > 0]
    scaled = torch.from_numpy((voxels - seen.mean()) / seen.std(ddof=1))
    embedding = net.image_encoder(scaled)
    low = torch.zeros(1, 1, EDGE // 4, EDGE // 4, EDGE // 4)
    for where, sign in clicks:
        sparse, dense = net.prompt_encoder(
            points=[torch.tensor([[where]], dtype=torch.float32), torch.tensor([[sign]])],
            boxes=None,
            masks=low,
        )
        low, _ = net.mask_decoder(
            image_embeddings=embedding,
            image_pe=net.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
    return functional.interpolate(low, size=(EDGE,) * 3, mode="trilinear", align_corners=False)[0, 0]


CLICKS = [((16, 16, 16), 1), ((3, 20, 9), 0), ((25, 4, 30), 1)]


def prompt(count: int, *mm: float) -> Prompt:
    points = tuple(tuple(float(m * v) for m, v in zip(mm, where, strict=True)) for where, _ in CLICKS[:count])
    return Prompt("liver", "clicks", points, tuple(sign for _, sign in CLICKS[:count]))


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 3])
def test_one_click_and_a_click_loop_are_the_official_path(backbone: Backbone, count: int) -> None:
    x = image()
    found = backbone.decode(backbone.encode(x, affine(2, 3, 4)), [prompt(count, 2, 3, 4)])[0, 0]
    expected = official(backbone.net, x, CLICKS[:count])
    assert float(expected.std()) > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@torch.no_grad()
def test_the_official_windowed_attention_too(backbone: Backbone) -> None:
    x, other = image(), sam3d.Sam3d(backbone.card, network(windowed=True)).eval()
    found = other.decode(other.encode(x, affine(1, 1, 1)), [prompt(1, 1, 1, 1)])[0, 0]
    expected = official(other.net, x, CLICKS[:1])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@torch.no_grad()
def test_a_click_moves_the_answer_along_every_axis_by_itself(backbone: Backbone) -> None:
    # the official encoding of image positions has its first two axes swapped; were clicks "repaired" to
    # match, these three would not be the official answers any more
    x = image()
    features = backbone.encode(x, affine(1, 1, 1))
    answers = []
    for axis in range(3):
        where = [4, 4, 4]
        where[axis] = 28
        one = Prompt("liver", "point", ((float(where[0]), float(where[1]), float(where[2])),), (1,))
        answers.append(backbone.decode(features, [one])[0, 0])
        expected = official(backbone.net, x, [((where[0], where[1], where[2]), 1)])
        torch.testing.assert_close(answers[-1], expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert not torch.allclose(answers[0], answers[1], atol=1e-3)


@torch.no_grad()
def test_samples_prompts_and_scale_are_independent(backbone: Backbone) -> None:
    x = image(2)
    prompts = [prompt(1, 1, 1, 1), prompt(3, 1, 1, 1)]
    both = backbone.decode(backbone.encode(x, affine(1, 1, 1).expand(2, 4, 4)), prompts)
    for i in range(2):
        for k, asked in enumerate(prompts):
            alone = backbone.decode(backbone.encode(x[i : i + 1], affine(1, 1, 1)), [asked])
            torch.testing.assert_close(both[i, k], alone[0, 0], rtol=0, atol=1e-4)
    # z-scores do not know units
    scaled = backbone.decode(backbone.encode(7 * x[:1], affine(1, 1, 1)), prompts)
    torch.testing.assert_close(scaled[0], both[0], rtol=0, atol=1e-3)


@torch.no_grad()
def test_clicks_outside_the_window_and_windows_without_a_voxel_above_0(backbone: Backbone) -> None:
    features = backbone.encode(torch.full((1, 1, EDGE, EDGE, EDGE), -1000.0), affine(1, 1, 1))
    assert torch.isfinite(backbone.decode(features, [prompt(1, 1, 1, 1)])).all()
    nowhere = Prompt("liver", "point", ((500.0, 5.0, 5.0),), (1,))
    assert (backbone.decode(features, [nowhere]) == -10).all()


@torch.no_grad()
def test_bfloat16_changes_little(backbone: Backbone) -> None:
    exact = backbone.decode(backbone.encode(image(), affine(1, 1, 1)), [prompt(3, 1, 1, 1)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = backbone.decode(backbone.encode(image(), affine(1, 1, 1)), [prompt(3, 1, 1, 1)])
    assert float((exact - rough).abs().max()) < 0.1 * float(exact.std()) + 0.1 * float(exact.abs().max())


@torch.no_grad()
def test_further_clicks_do_not_run_the_encoder_again(backbone: Backbone) -> None:
    ran: list[int] = []
    backbone.net.image_encoder.register_forward_hook(lambda *_: ran.append(1))
    features = backbone.encode(image(), affine(1, 1, 1))
    for count in (1, 2, 3):
        backbone.decode(features, [prompt(count, 1, 1, 1)])
    assert len(ran) == 1


def test_gradients_reach_encoder_and_decoder(backbone: Backbone) -> None:
    backbone.decode(
        backbone.encode(image(), affine(1, 1, 1)), [prompt(2, 1, 1, 1)]
    ).square().mean().backward()
    names = (
        "image_encoder.blocks.0.attn.qkv.weight",
        "image_encoder.patch_embed.proj.weight",
        "prompt_encoder.point_embeddings.1.weight",
        "mask_decoder.output_upscaling.0.weight",
    )
    for name in names:
        grad = backbone.net.get_parameter(name).grad
        assert grad is not None
        assert float(grad.abs().sum()) > 0, name


def test_what_does_not_fit_is_refused(backbone: Backbone) -> None:
    with pytest.raises(UserError, match="no other multiples"):
        backbone.encode(torch.zeros(1, 1, EDGE, EDGE, 2 * EDGE))
    features = backbone.encode(image(), affine(1, 1, 1))
    for kind in ("auto", "box", "text"):
        with pytest.raises(UserError, match=f"no '{kind}' prompts"):
            backbone.decode(features, [Prompt("liver", kind)])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="look at nothing"):
        load_backbone("sam_med3d_turbo", "random", windows=0)
    with pytest.raises(UserError, match="did you mean: windows"):
        load_backbone("sam_med3d_turbo", "random", widows=1)


def test_the_full_network_has_the_published_size_and_building_it_has_no_side_effects(
    capfd: pytest.CaptureFixture[str],
) -> None:
    hub = {key: value for key, value in os.environ.items() if key.startswith("HF_")}
    with torch.device("meta"):
        net = sam3d.build_network()
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS == 100_509_232
    assert len(net.state_dict()) == 324
    assert {key: value for key, value in os.environ.items() if key.startswith("HF_")} == hub
    assert capfd.readouterr() == ("", "")
    modules = dict(net.named_modules())
    assert len([name for name in modules if re.fullmatch(ATTENTION, name)]) == 24
    assert modules[sam_med3d_turbo_card().stem].in_channels == 1


def test_the_authors_checkpoint_layout_loads_and_anything_short_of_complete_does_not(
    backbone: Backbone, tmp_path: Path
) -> None:
    # what the authors' train.py saves: the weights among plain numbers and its command line
    state = {key: value + 1 for key, value in network().state_dict().items()}
    whole = {
        "epoch": 3,
        "model_state_dict": state,
        "losses": [0.5, np.float64(0.25)],
        "best_dice": np.float64(0.9),
        "args": Namespace(task_name="ft", lr=1e-4, gpu_ids=[0]),
    }
    torch.save(whole, tmp_path / "turbo.pth")
    loaded = weights.load_weights(backbone, ModelOptions(weights=str(tmp_path / "turbo.pth")))
    assert not loaded.random_weights
    assert torch.equal(loaded.net.state_dict()["image_encoder.pos_embed"], state["image_encoder.pos_embed"])
    state.pop("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix")
    torch.save({"model_state_dict": state}, tmp_path / "short.pth")
    with pytest.raises(UserError, match="missing prompt_encoder"):
        weights.load_weights(backbone, ModelOptions(weights=str(tmp_path / "short.pth")))


@pytest.mark.parametrize("name", ["sam_med3d_turbo", "seganypet_v1", "seganypet_v2", "seganypet_lesion"])
def test_cards_and_listings(name: str) -> None:
    from umdseg import registry

    listing = registry.resolve("model", name).listing()
    assert listing.card.name == name
    assert listing.weights.sha256 is None
    assert "not verified" in listing.weights.note
    assert listing.trained_on == (("ct", "mr") if name == "sam_med3d_turbo" else ("pet",))
    assert (listing.weights.commercial is True) == (name == "sam_med3d_turbo")
