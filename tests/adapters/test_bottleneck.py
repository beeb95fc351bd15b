"""Where bottleneck adapters go and what shape they have."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from umdseg import load_backbone
from umdseg.adapters import merge
from umdseg.adapters.blocks import blocks
from umdseg.adapters.bottleneck import Bottleneck, BottleneckOptions, ConvBranch, Mlp
from umdseg.adapters.layers import find
from umdseg.backbones.sam2d.cards import ATTENTION, ATTENTION_SAM2
from umdseg.errors import UserError

LAYERS = {
    "3x3x3": nn.Conv3d(8, 6, 3, padding=1),
    "stride": nn.Conv3d(8, 6, 3, stride=2, padding=1),
    "uneven": nn.Conv3d(8, 6, (1, 3, 5), stride=(2, 1, 3), padding=(0, 2, 1), dilation=(1, 2, 1)),
    "1x1x1": nn.Conv3d(8, 6, 1),
    "1x1x1 with stride": nn.Conv3d(8, 6, 1, stride=2),
    "1x1x1 with padding": nn.Conv3d(8, 6, 1, padding=1),
    "same": nn.Conv3d(8, 6, (2, 4, 3), padding="same"),
    "groups": nn.Conv3d(8, 6, 3, groups=2, padding_mode="reflect", padding=1),
    "2d": nn.Conv2d(8, 6, 3, padding=1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_branches_fit_their_convolution_and_are_silent(name: str) -> None:
    layer = LAYERS[name]
    x = torch.randn(2, 8, *(9, 8, 10)[: layer.weight.dim() - 2])
    branch = ConvBranch(layer, 2)
    assert branch(x).shape == layer(x).shape
    assert not branch(x).any()
    nn.init.ones_(branch.up.weight)
    assert branch(x).any()


def test_a_branch_looks_as_far_as_its_convolution() -> None:
    branch = ConvBranch(nn.Conv3d(1, 1, 3, padding=1), 4)
    nn.init.normal_(branch.up.weight)
    x = torch.zeros(1, 1, 7, 7, 7)
    quiet = branch(x)
    x[0, 0, 3, 3, 3] = 1
    changed = (branch(x) != quiet)[0, 0].nonzero()
    assert changed.min(dim=0).values.tolist() == [2, 2, 2]
    assert changed.max(dim=0).values.tolist() == [4, 4, 4]


@pytest.mark.parametrize("second", [False, True])
def test_transformer_blocks_get_one_beside_the_mlp_and_one_after_attention(second: bool) -> None:
    """On transformers' own networks, sizes read off their configurations."""
    from transformers import Sam2HieraDetConfig, Sam2HieraDetModel, SamVisionConfig, SamVisionModel

    if second:
        sizes = {"hidden_size": 8, "embed_dim_per_stage": [8, 16, 32, 64], "blocks_per_stage": [1, 1, 2, 1]}
        net = Sam2HieraDetModel(Sam2HieraDetConfig(image_size=[64, 64], **sizes))
        pattern, widths = ATTENTION_SAM2.removeprefix(r"vision_encoder\.backbone\."), [8, 16, 32, 32, 64]
    else:
        net = SamVisionModel(SamVisionConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=2))
        pattern, widths = ATTENTION, [24, 24]
    found, rest = blocks(net, find(net, pattern))
    assert not rest
    assert [block.width for block in found] == widths
    for block in found:
        assert block.mlp is block.module.mlp
        assert block.out is not None
        assert block.out[0] == f"{block.name}.attn.proj"
        assert block.out[1] is block.module.attn.proj


def test_the_class_heads_mlp_is_no_transformer() -> None:
    net = load_backbone("vista3d_tiny", "random").net
    found, rest = blocks(net, find(net, r"class_head\.mlp\.3"))
    assert not found
    assert [layer.name for layer in rest] == ["class_head.mlp.3"]


@pytest.mark.parametrize(
    ("given", "width"), [({}, 4), ({"reduction": 5}, 3), ({"width": 7}, 7), ({"reduction": 99}, 1)]
)
def test_named_layers_get_one_each(given: dict[str, int], width: int) -> None:
    backbone = load_backbone("vista3d_tiny", "random")
    adapter = Bottleneck(BottleneckOptions(targets=r"class_head\.mlp\.3|.*head\.mask_downsample", **given))  # type: ignore[arg-type]
    adapter.inject(backbone)
    assert isinstance(backbone.net.class_head.mlp[3].beside.sets[0], Mlp)
    small = given.get("width") or max(2 // given.get("reduction", 4), 1)
    mlp, conv = (16 * width + width) + (width * 16 + 16), (2 * small + small) + 27 * small + (small * 2 + 2)
    assert adapter.parameters(backbone)[0] == mlp + conv


def test_what_cannot_be_is_refused() -> None:
    backbone = load_backbone("vista3d_tiny", "random")
    for given in ({"reduction": 0}, {"width": 0}):
        with pytest.raises(UserError, match=rf"adapter\.{next(iter(given))}"):
            Bottleneck(BottleneckOptions(**given)).inject(backbone)
    adapter = Bottleneck(BottleneckOptions())
    adapter.inject(backbone)
    with pytest.raises(UserError, match="non-linearity"):
        merge(backbone)
    assert backbone.adapter is adapter
