"""Separable updates: run in factors they are the convolution with the composed kernel, borders included."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from umdseg import load_backbone
from umdseg.adapters import merge
from umdseg.adapters.lora_conv import LoraConv, LoraConvOptions, SeparableUpdate
from umdseg.errors import UserError

LAYERS = {
    "3x3x3": nn.Conv3d(5, 4, 3, padding=1),
    "no padding": nn.Conv3d(5, 4, 3),
    "stride": nn.Conv3d(5, 4, 3, stride=2, padding=1),
    "uneven": nn.Conv3d(5, 4, (1, 3, 5), stride=(2, 1, 3), padding=(0, 2, 1), dilation=(1, 2, 1)),
    "1x1x1": nn.Conv3d(5, 4, 1),
    "1x1x1 with stride and padding": nn.Conv3d(5, 4, 1, stride=2, padding=1),
    "even, same": nn.Conv3d(5, 4, (2, 4, 3), padding="same"),
    "valid": nn.Conv3d(5, 4, 3, padding="valid"),
    "replicate": nn.Conv3d(5, 4, 3, padding=1, padding_mode="replicate"),
    "reflect": nn.Conv3d(5, 4, 3, padding=1, padding_mode="reflect"),
    "circular": nn.Conv3d(5, 4, 3, padding=1, padding_mode="circular", stride=(1, 2, 1)),
    "groups": nn.Conv3d(6, 4, 3, padding=1, groups=2),
    "depthwise": nn.Conv3d(4, 4, 3, padding=1, groups=4),
    "2d": nn.Conv2d(5, 4, 3, padding=1),
    "1d": nn.Conv1d(5, 4, 3, padding=1, dilation=2),
    "linear": nn.Linear(5, 4),
}


def moved(layer: nn.Module, rank: int = 3) -> SeparableUpdate:
    """An update of which nothing is zero any more."""
    generator = torch.Generator().manual_seed(0)
    branch = SeparableUpdate(layer, rank).double()
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return branch


@pytest.mark.parametrize("name", LAYERS)
def test_the_factors_are_the_layer_with_the_composed_kernel(name: str) -> None:
    layer = LAYERS[name]
    branch = moved(layer)
    alone = copy.deepcopy(layer).double()
    with torch.no_grad():
        alone.weight.copy_(branch.update())
        alone.bias.zero_()
    sides = () if isinstance(layer, nn.Linear) else (9, 8, 10)[: layer.weight.dim() - 2]
    width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    x = torch.randn(2, width, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got, want = branch(x), alone(x)
    assert got.shape == want.shape
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_the_composed_kernel_is_the_sum_of_outer_products() -> None:
    branch = moved(nn.Conv3d(2, 3, (3, 5, 1)), rank=2)
    a, b = branch.factors
    for o, i, x, y in itertools.product(range(3), range(2), range(3), range(5)):
        terms = [branch.up[o, r] * a[r, x] * b[r, y] * branch.down[r, i] for r in range(2)]
        torch.testing.assert_close(branch.update()[o, i, x, y, 0], sum(terms))


@pytest.mark.parametrize(("groups", "rank", "inner"), [(1, 3, 3), (2, 3, 4), (4, 3, 4), (4, 8, 8)])
def test_groups_share_the_rank(groups: int, rank: int, inner: int) -> None:
    branch = SeparableUpdate(nn.Conv3d(8, 12, 3, groups=groups), rank)
    assert branch.down.shape == (inner, 8 // groups)
    assert [tuple(f.shape) for f in branch.factors] == [(inner, 3)] * 3
    assert branch.up.shape == (12, inner // groups)


def test_parameters_are_as_the_formula_says() -> None:
    backbone = load_backbone("vista3d_tiny", "random")
    layers = [m for k, m in backbone.net.named_modules() if k.endswith(("conv1", "conv2", "conv1.conv"))]
    layers += [m for k, m in backbone.net.named_modules() if k.endswith("conv2.conv")]
    widths = [m.in_channels for m in layers if isinstance(m, nn.Conv3d)]
    adapter = LoraConv(LoraConvOptions(rank=4))
    adapter.inject(backbone)
    assert adapter.parameters(backbone)[0] == sum(4 * (2 * w + 9) for w in widths)


def test_merged_weights_are_base_plus_scaled_update() -> None:
    backbone = load_backbone("vista3d_tiny", "random")
    adapter = LoraConv(LoraConvOptions(rank=2, alpha=6, targets=r".*encoder\.layers\.0\.blocks\.0\.conv1"))
    adapter.inject(backbone)
    layer = backbone.net.image_encoder.encoder.layers[0].blocks[0].conv1
    branch = layer.beside.sets[0]
    with torch.no_grad():
        branch.up.normal_()
    want = layer.weight + 3 * branch.update()
    merge(backbone)
    torch.testing.assert_close(layer.weight, want, rtol=0, atol=0)
    assert not hasattr(layer, "beside")
    assert not layer._forward_hooks


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"rank": 0}, "rank 0"),
        ({"targets": r".*deconv"}, "ConvTranspose3d"),
        ({"targets": "nothing"}, "no mod"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], what: str) -> None:
    backbone = load_backbone("vista3d_tiny", "random")
    names = list(backbone.net.state_dict())
    with pytest.raises(UserError, match=what):
        LoraConv(LoraConvOptions(**given)).inject(backbone)  # type: ignore[arg-type]
    assert backbone.adapter is None
    assert list(backbone.net.state_dict()) == names
