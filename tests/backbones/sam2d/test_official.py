"""The original repositories' weights and answers: every name is converted, and the networks agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from umdseg.backbones.options import ModelOptions
from umdseg.backbones.sam2d.pictures import Layout
from umdseg.backbones.sam2d.prompts import Ask
from umdseg.backbones.sam2d.video import propagate
from umdseg.backbones.weights import load_weights
from umdseg.errors import UserError

# float32 sums in another order; logits up to 0.8 (and one answer feeds another)
TOLERANCE = {"rtol": 0, "atol": 5e-5}


def pictures(count, edge):
    return torch.from_numpy(np.random.default_rng(1).normal(0, 1, (count, 3, edge, edge))).float()


@pytest.mark.parametrize("style", ["sam", "sam2"])
def test_every_published_name_becomes_one_of_the_network(style, make, official, drawn) -> None:
    backbone = make(style)
    own = backbone.net.state_dict()
    state = drawn(official[style]["names"])
    converted = backbone.convert(state)
    assert {n: v.shape for n, v in converted.items()} == {n: v.shape for n, v in own.items()}
    # nothing but constants is left out, no number changes, and the network's own names stay
    kept = sorted(float(v.double().sum()) for n, v in state.items() if not n.startswith("pixel_"))
    doubled = converted["shared_image_embedding.positional_embedding"].double().sum()
    if style == "sam":
        assert sorted([*kept, float(doubled)]) == sorted(float(v.double().sum()) for v in converted.values())
    assert backbone.convert(dict(own)).keys() == own.keys()


@torch.no_grad()
def test_sam_says_what_the_original_says(make, official) -> None:
    backbone = make("sam")
    (embedding,) = backbone.embed(pictures(1, 64))
    layout = Layout.of("sam", 64, (64, 64), (1.0, 1.0))
    two = np.array([[20.0, 30.0], [40.0, 10.0]])
    box = (10.0, 12.0, 40.0, 50.0)
    low = backbone.ask([embedding], layout, Ask(box=box))
    answers = {
        # of three masks the one of highest predicted quality
        "click": backbone.ask([embedding], layout, Ask(two[:1], (1,))),
        "clicks": backbone.ask([embedding], layout, Ask(two, (1, 0))),
        "box": low,
        "box_mask": backbone.ask([embedding], layout, Ask(box=box, low=low)),
    }
    for name, expected in official["sam"]["answers"].items():
        found = answers[name].flatten()[::3]
        torch.testing.assert_close(found, torch.tensor(expected), **TOLERANCE)


class FiveFrames:
    """What `propagate` needs of a stack."""

    device = torch.device("cpu")
    layout = Layout.of("sam2", 128, (128, 128), (1.0, 1.0))

    class grid:
        shape = (128, 128, 5)

    def __init__(self, backbone) -> None:
        self._made = [backbone.embed(one[None]) for one in pictures(5, 128)]

    def embedding(self, number):
        return self._made[number]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["box", "click"])
def test_sam2_follows_like_the_original(kind, make, official) -> None:
    """Asked on the second of five frames, forward and in reverse, with memory."""
    backbone = make("sam2")
    asked = {"box": ([[30.0, 30.0], [90.0, 80.0]], [2, 3]), "click": ([[60.0, 50.0]], [1])}[kind]
    question = {"input_points": torch.tensor([[asked[0]]]), "input_labels": torch.tensor([[asked[1]]]).int()}
    found = dict(propagate(backbone.net, FiveFrames(backbone), {1: question}, (0, 4)))
    expected = official["sam2"]["answers"][kind]
    assert sorted(found) == sorted(int(number) for number in expected)
    for number, low in found.items():
        # memories are rounded to bfloat16, which now and then goes the other way; logits up to 66
        values = torch.tensor(expected[str(number)])
        torch.testing.assert_close(low.flatten()[::13], values, rtol=0, atol=0.05)


def test_files_of_both_layouts_load_and_nothing_loads_partly(make, official, drawn, tmp_path) -> None:
    state = drawn(official["sam"]["names"])
    torch.save(state, tmp_path / "medsam_vit_b.pth")
    expected = make("sam").net.state_dict()
    # safetensors keep one of two names of a shared tensor
    other = {n: v.clone() for n, v in expected.items() if not n.startswith("prompt_encoder.shared_embedding")}
    save_file(other, tmp_path / "model.safetensors")
    for file in ("medsam_vit_b.pth", "model.safetensors"):
        backbone = make("sam")
        with torch.no_grad():
            for parameter in backbone.net.parameters():
                parameter.zero_()
        load_weights(backbone, ModelOptions("sam_vit_b", str(tmp_path / file)))
        assert all(torch.equal(v, expected[n]) for n, v in backbone.net.state_dict().items())
        assert not backbone.random_weights
    for damage in (
        "image_encoder.blocks.1.attn.qkv.bias",
        "mask_decoder.iou_prediction_head.layers.1.weight",
    ):
        torch.save({n: v for n, v in state.items() if n != damage}, tmp_path / "short.pth")
        with pytest.raises(UserError, match="short"):
            load_weights(make("sam"), ModelOptions("sam_vit_b", str(tmp_path / "short.pth")))
    torch.save({**state, "image_encoder.extra": torch.ones(1)}, tmp_path / "more.pth")
    with pytest.raises(UserError, match=r"vision_encoder\.extra"):
        load_weights(make("sam"), ModelOptions("sam_vit_b", str(tmp_path / "more.pth")))
    torch.save({"model": drawn(official["sam2"]["names"])}, tmp_path / "sam2.pt")
    with pytest.raises(UserError):
        load_weights(make("sam"), ModelOptions("sam_vit_b", str(tmp_path / "sam2.pt")))
    load_weights(make("sam2"), ModelOptions("sam2_tiny", str(tmp_path / "sam2.pt")))
