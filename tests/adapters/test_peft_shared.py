"""peft's methods on nnU-Net's network as published, its modules under up to four names each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from umdseg import registry
from umdseg.adapters import AdapterCard, build, disable, load_adapter, merge, unload
from umdseg.adapters.gradient import check_gradients
from umdseg.adapters.layers import layers
from umdseg.backbones import Backbone
from umdseg.backbones.card import Card, Intensity, Weights
from umdseg.backbones.torch_module.backbone import TorchModule
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")

TARGETS = r"(encoder|decoder)\.stages\.(\d+\.)+convs\.\d+\.conv"
METHODS = ("lora", "dora", "ia3")
methods = pytest.mark.parametrize("method", METHODS)


def model() -> Backbone:
    """A user's module: nothing has tidied its names."""
    torch.manual_seed(0)
    net = unet.PlainConvUNet(
        1, 3, [4, 8, 8], nn.Conv3d, 3, [1, 2, 2], 1, 2, 1, conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip
    scale = Intensity("as_is")
    card = Card(
        name="mine", weights=Weights(None, "", None, "none", True), spacing=(6.0,) * 3, window=(16,) * 3,
        divisor=4, intensity={"ct": scale, "pet": scale, "mr": scale}, structures={"liver": 1}, stem="",
        adapter_targets=TARGETS, citation="", output="softmax",
    )  # fmt: skip
    backbone = TorchModule(card, net.eval())
    backbone.state_sha256 = "known"
    return backbone.requires_grad_(False)


def image() -> torch.Tensor:
    return torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))


def answer(backbone: Backbone) -> torch.Tensor:
    return backbone.decode(backbone.encode(image()), [Prompt("liver")])


def adapted(method: str) -> Backbone:
    backbone = model()
    build(registry.resolve("adapter", method).Options(name=method)).inject(backbone)
    return backbone


def trained(method: str) -> Backbone:
    backbone = adapted(method)
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        answer(backbone).square().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return backbone


def test_the_network_has_second_names() -> None:
    assert max(len(layer.names) for layer in layers(model().net)) == 4


@methods
def test_every_adapter_is_reached_and_counted_once(method: str) -> None:
    backbone = trained(method)
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
    check_gradients(backbone)
    wanted = [m for n, m in model().net.named_modules() if re.fullmatch(TARGETS, n)]
    per_layer = {"lora": 2, "dora": 3, "ia3": 1}[method]
    assert len([p for p in backbone.parameters() if p.requires_grad]) == per_layer * len(wanted)


@methods
@torch.no_grad()
def test_saved_folded_and_taken_out_under_all_names(method: str, tmp_path: Path) -> None:
    state, base = model().net.state_dict(), answer(model())
    with torch.enable_grad():
        backbone = trained(method)
    tuned = answer(backbone)
    assert not torch.equal(tuned, base)
    with disable(backbone):
        assert torch.equal(answer(backbone), base)
    assert backbone.adapter is not None
    backbone.adapter.save(tmp_path / "a", backbone, AdapterCard.describe(backbone))
    other = model()
    load_adapter(tmp_path / "a", other)
    assert torch.equal(answer(other), tuned)
    merge(other)
    torch.testing.assert_close(answer(other), tuned, rtol=0, atol=1e-4)
    assert other.net.state_dict().keys() == state.keys()
    unload(backbone)
    after: Any = backbone.net.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[key], state[key]) for key in state)
    assert torch.equal(answer(backbone), base)


def test_a_pattern_of_transposed_convolutions_alone_is_refused() -> None:
    with pytest.raises(UserError, match="transposed convolutions stay frozen"):
        build(registry.resolve("adapter", "lora").Options(targets=r"decoder\.transpconvs\.\d+")).inject(
            model()
        )


def test_ranks_that_do_not_divide_among_groups_and_dead_outputs_are_refused_by_name() -> None:
    backbone = model()
    block: Any = backbone.net.get_submodule("encoder.stages.1.0.convs.0")
    block.conv = block.all_modules[0] = nn.Conv3d(4, 8, 3, 2, 1, groups=4)
    with pytest.raises(UserError, match=r"rank 6 .* 4 groups of encoder\.stages\.1"):
        build(registry.resolve("adapter", "lora").Options(rank=6)).inject(backbone)
    nn.init.zeros_(block.conv.weight)
    with pytest.raises(UserError, match=r"encoder\.stages\.1.* weights are all 0"):
        build(registry.resolve("adapter", "dora").Options(name="dora")).inject(backbone)
