"""Bottleneck adapters: narrow, non-linear, beside frozen layers, silent at the start.

For convolutions as in Conv-Adapter (Chen et al., arXiv 2208.07463), for transformer blocks as in Medical SAM
Adapter (Wu et al., arXiv 2304.12620).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import nn

from umdseg.adapters.base import AdapterOptions
from umdseg.adapters.beside import BesideAdapter, BesideOptions, Place
from umdseg.adapters.blocks import Block, blocks
from umdseg.adapters.layers import find, widths
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError

_CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@dataclass
class BottleneckOptions(BesideOptions):
    """Options of bottleneck adapters.

    Attributes:
        reduction: the bottleneck is so many times narrower than the layer's input.
        width: channels of every bottleneck, in place of `reduction`.
        targets: regular expression of names of linear layers and convolutions that get an adapter beside
            them. None = the convolutions that the card names; where it names layers of transformer blocks,
            each block gets one beside its MLP and one after its attention.
    """

    name: str = "bottleneck"
    reduction: int = 4
    width: int | None = None


class Bottleneck(BesideAdapter):
    """Down, (depthwise convolution,) GELU, up; the last map is zero at the start."""

    method = "bottleneck"
    needs: ClassVar[tuple[str, ...]] = ("logits", "targets")
    # nothing scales up what a zero map lets through at first: 1e-3 is too slow (experiments/anatomy_methods)
    default_lr = 5e-3
    why_not_merged = "between its two maps there is a non-linearity"
    Options: ClassVar[type[AdapterOptions]] = BottleneckOptions

    def places(self, backbone: Backbone) -> Mapping[str, Place]:
        """The layers that `targets` names, or the card's convolutions and transformer blocks."""
        options = cast(BottleneckOptions, self.options)
        narrow(options.reduction, options.width, 1)
        targets = backbone.card.adapter_targets
        found = find(backbone.net, options.targets or targets, example=targets)
        inside, rest = ([], found) if options.targets else blocks(backbone.net, found)
        places = {layer.name: Place(layer.module, self._beside(layer.module)) for layer in rest}
        for block in inside:
            places |= self._around(block)
        return places

    def _around(self, block: Block) -> dict[str, Place]:
        def make() -> nn.Module:
            return Mlp(block.width, block.width, self._narrow(block.width))

        places = {f"{block.name}.mlp": Place(block.mlp, make)}
        if block.out is not None:
            name, layer = block.out
            places[name] = Place(layer, make, after=True)
        return places

    def _beside(self, layer: nn.Module) -> Any:
        inputs, outputs = widths(layer)
        if isinstance(layer, nn.Linear):
            return lambda: Mlp(inputs, outputs, self._narrow(inputs))
        return lambda: ConvBranch(layer, self._narrow(inputs))

    def _narrow(self, inputs: int) -> int:
        options = cast(BottleneckOptions, self.options)
        return narrow(options.reduction, options.width, inputs)


class Mlp(nn.Module):
    """(..., inputs) -> (..., outputs) through `width` features and GELU."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.down, self.act, self.up = nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, outputs)
        silence(self.up)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is added to the layer's output."""
        added: torch.Tensor = self.up(self.act(self.down(x)))
        return added


class ConvBranch(nn.Module):
    """(B, in, ...) -> (B, out, ...) as the convolution beside which it stands, through `width` channels.

    A 1 x 1 x 1 convolution, one channel by channel with the layer's kernel, stride, padding and dilation
    (left out where the layer looks at single voxels and skips none), GELU, and a 1 x 1 x 1 convolution.
    """

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        conv, given = _CONV[cast(torch.Tensor, layer.weight).dim() - 2], cast(Any, layer)
        self.down = conv(given.in_channels, width, 1)
        shape = {name: getattr(given, name) for name in ("stride", "padding", "dilation", "padding_mode")}
        looks = any(edge > 1 for edge in (*given.kernel_size, *given.stride)) or any(
            given._reversed_padding_repeated_twice
        )
        self.space = (
            conv(width, width, given.kernel_size, groups=width, bias=False, **shape)
            if looks
            else nn.Identity()
        )
        self.act, self.up = nn.GELU(), conv(width, given.out_channels, 1)
        silence(self.up)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is added to the layer's output."""
        added: torch.Tensor = self.up(self.act(self.space(self.down(x))))
        return added


def silence(last: nn.Module) -> None:
    """Set a map to zero, so that an adapter that ends in it adds nothing yet."""
    for parameter in last.parameters():
        nn.init.zeros_(parameter)


def narrow(reduction: int, width: int | None, inputs: int) -> int:
    """Width of a bottleneck, 1 at least.

    Raises:
        UserError: it would be none.
    """
    for name, value in (("reduction", reduction), ("width", width)):
        if value is not None and value < 1:
            raise UserError(f"a bottleneck of {name} {value}", where=f"adapter.{name}", expected="1 or more")
    return width or max(inputs // reduction, 1)
