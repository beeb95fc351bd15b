"""LoRA whose update is low-rank in space too (ours; the form is CP, Lebedev et al., arXiv 1412.6553)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import nn
from torch.nn import functional

from umdseg.adapters.base import AdapterOptions
from umdseg.adapters.beside import BesideAdapter, BesideOptions, Place
from umdseg.adapters.layers import find
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@dataclass
class LoraConvOptions(BesideOptions):
    """Options of spatially factorised LoRA.

    Attributes:
        rank: r, number of separable kernels an update is the sum of.
        alpha: the update is scaled by alpha / rank.
        dropout: on the adapter's input, in training.
    """

    name: str = "lora_conv"
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0


class LoraConv(BesideAdapter):
    """Separable low-rank updates beside frozen convolutions; beside linear layers, plain LoRA.

    Of a kernel (out, in, kx, ky, kz) plain LoRA of rank r trains r (in kx ky kz + out) numbers, this
    r (in + kx + ky + kz + out), axes of one voxel not counted: for 3 x 3 x 3 over 64 channels 8.9 % of that.
    """

    method = "lora_conv"
    needs: ClassVar[tuple[str, ...]] = ("logits", "targets")
    # LoRA's 2e-3 is too slow for its few factors (experiments/anatomy_methods)
    default_lr = 1e-2
    Options: ClassVar[type[AdapterOptions]] = LoraConvOptions

    def places(self, backbone: Backbone) -> Mapping[str, Place]:
        """The card's layers, or those that `targets` names."""
        options = cast(LoraConvOptions, self.options)
        if options.rank < 1:
            raise UserError(f"LoRA of rank {options.rank}", where="adapter.rank", expected="1 or more")
        card = backbone.card
        found = find(backbone.net, options.targets or card.adapter_targets, example=card.adapter_targets)
        scale = options.alpha / options.rank
        return {layer.name: Place(layer.module, _maker(layer.module, options), scale) for layer in found}


def _maker(layer: nn.Module, options: LoraConvOptions) -> Any:
    return lambda: SeparableUpdate(layer, options.rank, options.dropout)


class SeparableUpdate(nn.Module):
    """Update of a layer's weight as a sum of r separable kernels (CP form), run without building it.

    update[o, i, x, y, z] = sum_r up[o, r] a[r, x] b[r, y] c[r, z] down[r, i]. As convolutions: 1 x 1 x 1
    from in to r channels, padding, then one channel by channel along each axis with that axis' stride and
    dilation, then 1 x 1 x 1 to out. Padding once, before the factors, makes this equal to the convolution
    with `update()` at the borders too: a map without bias commutes with every way of padding.

    Of a convolution in g groups every group gets ceil(r / g) ranks of its own.

    Args:
        layer: `nn.Linear`, `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d`; its weight is not touched.
        rank: r.
        dropout: on the input, in training.
    """

    def __init__(self, layer: nn.Module, rank: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        shape = cast(torch.Tensor, layer.weight).shape
        kernel = tuple(shape[2:])
        given: Any = layer
        self._groups = int(given.groups) if kernel else 1
        inner = self._groups * math.ceil(rank / self._groups)
        self._stride = tuple(given.stride) if kernel else ()
        self._dilation = tuple(given.dilation) if kernel else ()
        self._padding = list(given._reversed_padding_repeated_twice) if kernel else []
        self._mode = "constant" if not kernel or given.padding_mode == "zeros" else given.padding_mode
        self._kernel = kernel
        self.down = nn.Parameter(torch.empty(inner, shape[1]))
        self.factors = nn.ParameterList(
            # together they keep the size of what they are applied to
            [nn.Parameter(torch.randn(inner, edge) / edge**0.5) for edge in kernel if edge > 1]
        )
        # zero: the layer starts as it is
        self.up = nn.Parameter(torch.zeros(shape[0], inner // self._groups))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the update adds to the layer's output, for its input (B, in, ...) or (..., in)."""
        x = self.dropout(x)
        if not self._kernel:
            return functional.linear(functional.linear(x, self.down), self.up)
        conv: Any = _CONV[len(self._kernel)]
        points = (1,) * len(self._kernel)
        h = conv(x, self.down.reshape(*self.down.shape, *points), groups=self._groups)
        if any(self._padding):
            h = functional.pad(h, self._padding, self._mode)
        factors = iter(self.factors)
        for axis, (edge, stride) in enumerate(zip(self._kernel, self._stride, strict=True)):
            if edge > 1:
                weight = next(factors).reshape(-1, 1, *_along(axis, edge, points))
                steps, reach = _along(axis, stride, points), _along(axis, self._dilation[axis], points)
                h = conv(h, weight, stride=steps, dilation=reach, groups=weight.shape[0])
            elif stride > 1:
                h = h[(..., slice(None, None, stride), *([slice(None)] * (len(points) - axis - 1)))]
        added: torch.Tensor = conv(h, self.up.reshape(*self.up.shape, *points), groups=self._groups)
        return added

    def update(self) -> torch.Tensor:
        """The composed kernel, of the shape of the layer's weight."""
        groups, own = self._groups, self.up.shape[1]
        spatial = torch.ones(self.down.shape[0], *([1] * len(self._kernel))).to(self.down)
        factors = iter(self.factors)
        for axis, edge in enumerate(self._kernel):
            if edge > 1:
                spatial = spatial * next(factors).reshape(-1, *_along(axis, edge, (1,) * len(self._kernel)))
        up = self.up.reshape(groups, -1, own)
        down = self.down.reshape(groups, own, -1)
        spatial = spatial.reshape(groups, own, *spatial.shape[1:])
        kernel = torch.einsum("gor,gri,gr...->goi...", up, down, spatial)
        return kernel.reshape(-1, *kernel.shape[2:])


def _along(axis: int, value: int, points: tuple[int, ...]) -> tuple[int, ...]:
    """One for every axis but one."""
    return (*points[:axis], value, *points[axis + 1 :])
