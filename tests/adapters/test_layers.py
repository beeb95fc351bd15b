"""Layers found by name, under all their names, and replaced under all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from umdseg.adapters.layers import find, layers, pattern_of, replace, widths
from umdseg.errors import UserError


class Shared(nn.Module):
    """As nnU-Net's blocks: forward runs a list in which the convolution hangs a second time."""

    encoder: Any
    decoder: Any

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.conv = nn.Conv3d(1, 2, 3, padding=1)
        self.encoder.all_modules = nn.Sequential(self.encoder.conv, nn.ReLU())
        self.decoder.encoder = self.encoder
        self.decoder.up = nn.ConvTranspose3d(2, 2, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.encoder.all_modules(x)


NAMES = ("encoder.conv", "encoder.all_modules.0", "decoder.encoder.conv", "decoder.encoder.all_modules.0")


@pytest.mark.parametrize("pattern", ["encoder.conv", r".*all_modules\.0", r"decoder\.encoder\.conv", ".*"])
def test_a_shared_layer_is_found_once_by_any_name_with_all_names(pattern: str) -> None:
    net = Shared()
    (found,) = find(net, pattern)
    assert found.module is net.encoder.conv
    assert found.names == NAMES
    assert found.name == dict((id(m), n) for n, m in net.named_modules())[id(net.encoder.conv)]


def test_a_replacement_runs_whatever_name_forward_uses() -> None:
    net, doubled = Shared(), nn.Conv3d(1, 2, 3, padding=1)
    x = torch.rand(1, 1, 4, 4, 4)
    replace(net, find(net, "encoder.conv")[0].names, doubled)
    assert torch.equal(net(x), doubled(x).relu())
    assert {id(net.get_submodule(name)) for name in NAMES} == {id(doubled)}
    assert len([m for m in net.modules() if isinstance(m, nn.Conv3d)]) == 1


def test_a_replacement_may_lie_on_the_way_to_another_name() -> None:
    """The second name leads through what the first one replaces."""
    net: Any = nn.Module()
    net.a = nn.Sequential(nn.ReLU())
    net.b = nn.Module()
    net.b.a = net.a
    replace(net, ["b", "b.a"], nn.Identity())
    assert isinstance(net.b, nn.Identity)


def test_patterns_that_name_nothing_usable_are_refused_with_the_reason() -> None:
    net = Shared()
    with pytest.raises(UserError, match="transposed convolutions stay frozen") as caught:
        find(net, r"decoder\.up", example="encoder.conv")
    assert "such as encoder.conv" in str(caught.value)
    with pytest.raises(UserError, match=r"(?s)no module.*did you mean: encoder\.conv"):
        find(net, "encoder.cov")
    with pytest.raises(UserError, match="only ReLU"):
        find(net, r".*all_modules\.1")
    with pytest.raises(UserError, match="no regular expression"):
        find(net, "(")
    attention = nn.TransformerEncoderLayer(4, 2)
    with pytest.raises(UserError, match="past the module"):
        find(attention, r"self_attn\.out_proj")


def test_transposed_convolutions_are_passed_over_beside_others() -> None:
    net = Shared()
    chosen = find(net, r"encoder\.conv|decoder\.up")
    assert [layer.module for layer in chosen] == [net.encoder.conv]
    assert pattern_of(net, chosen, r"encoder\.conv|decoder\.up") == r"encoder\.conv"
    assert pattern_of(net, chosen, r"enc.*\.conv") == r"enc.*\.conv"


def test_all_modules_are_listed_once_in_network_order() -> None:
    net = Shared()
    assert [layer.name for layer in layers(net)] == [name for name, _ in net.named_modules() if name]
    assert widths(net.encoder.conv) == (1, 2)
    assert widths(nn.Linear(3, 5)) == (3, 5)
