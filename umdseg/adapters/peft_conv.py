"""peft's LoRA on convolutions where peft 0.21 is wrong or gives up: 1x1x1, grouped, dilated, mirror-padded.

Plain peft crashes when it folds a 1x1x1 convolution (peft issue 3768), cannot fold a grouped one, and forgets
dilation and padding mode (issue 3697). Of a grouped convolution its A reads all channels, an update that no
grouped kernel can hold; here A is grouped like the layer. Saved, A is written out with zeros between the
groups, which is the same function in plain peft.

Imported only when peft is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import dora, layer, variants
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import nn

from umdseg.errors import UserError


class _Conv:
    """What the three share; mixed in before peft's class."""

    def update_layer(self: Any, adapter_name: str, r: int, *args: Any, **kwargs: Any) -> None:
        """Add an adapter: peft's, with A as dilated, padded and grouped as the layer is."""
        super().update_layer(adapter_name, r, *args, **kwargs)  # type: ignore[misc]
        base, old = self.get_base_layer(), self.lora_A[adapter_name]
        facts = {"dilation": base.dilation, "groups": base.groups, "padding_mode": base.padding_mode}
        if all(getattr(old, key) == value for key, value in facts.items()):
            return
        size = (base.in_channels, r, base.kernel_size, base.stride, base.padding)
        kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(base.kernel_size)]
        new = kind(*size, bias=False, **facts).to(old.weight.device, old.weight.dtype)
        # as peft starts its own
        nn.init.kaiming_uniform_(new.weight, a=math.sqrt(5))
        new.requires_grad_(old.weight.requires_grad)
        self.lora_A[adapter_name] = new

    def get_delta_weight(self: Any, adapter: str) -> torch.Tensor:
        """Scale B A as a kernel of the layer's shape, summed in float64."""
        weight = self.get_base_layer().weight
        kernel = product(self.lora_A[adapter].weight.double(), self.lora_B[adapter].weight.double(), weight)
        scaled: torch.Tensor = kernel * self.scaling[adapter]
        return scaled.to(weight.dtype)

    def merge(self: Any, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Fold adapters into the kernel, of grouped layers too."""
        del safe_merge
        weight = self.get_base_layer().weight
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.lora_A:
                continue
            if name in self.lora_variant:
                self.lora_variant[name].merge_unsafe(self, name, weight)
            else:
                weight.data += self.get_delta_weight(name)
            self.merged_adapters.append(name)


class Conv1d(_Conv, layer.Conv1d):
    """LoRA on a 1-D convolution."""


class Conv2d(_Conv, layer.Conv2d):
    """LoRA on a 2-D convolution."""


class Conv3d(_Conv, layer.Conv3d):
    """LoRA on a 3-D convolution."""

    @property
    def lora_variants(self) -> Any:
        """As peft's, with norms of grouped kernels right."""
        return {**super().lora_variants, ("use_dora",): DoraVariant}


class DoraKernel(dora.DoraConv3dLayer):
    """DoRA's magnitudes of a convolution; A and B may be grouped."""

    def get_lora_weight(self, lora_A: Any, lora_B: Any, adapter_name: str | None = None) -> torch.Tensor:
        """B A as a kernel, with gradient."""
        del adapter_name
        return product(lora_A.weight, lora_B.weight)


class DoraVariant(variants.DoraConv3dVariant):
    """DoRA with `DoraKernel`."""

    @staticmethod
    def init(module: Any, adapter_name: str, config: Any = None, **kwargs: Any) -> None:
        """Add magnitudes: the norms of the layer's kernels."""
        del config, kwargs
        layer_of: Any = DoraKernel
        variants._DoraConvNdVariant.init_convd_variant(
            module, adapter_name, dora_layer=layer_of(fan_in_fan_out=False)
        )


def product(a: torch.Tensor, b: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
    """The kernel that a convolution with `a`, then one of size 1 with `b`, have together.

    Args:
        a: (r, in / groups, *kernel).
        b: (out, r / groups, 1, ...); tells the number of groups.
        like: kernel whose shape the result has; None = (out, in / groups, *kernel).
    """
    groups = a.shape[0] // b.shape[1]
    down = a.reshape(groups, b.shape[1], -1)
    up = b.reshape(groups, b.shape[0] // groups, b.shape[1])
    shape = (b.shape[0], *a.shape[1:]) if like is None else like.shape
    return torch.bmm(up, down).reshape(shape)


def grouped(net: nn.Module) -> dict[str, Any]:
    """Name -> adapted convolution, of those with several groups."""
    found = {}
    for name, module in net.named_modules():
        if isinstance(module, _Conv):
            wrapped: Any = module
            if wrapped.get_base_layer().groups > 1:
                found[name] = wrapped
    return found


def widened(net: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors with each grouped A written out over all channels, zeros between groups."""
    state = dict(state)
    for name, module in grouped(net).items():
        groups = module.get_base_layer().groups
        for adapter in module.lora_A:
            key = f"{name}.lora_A.{adapter}.weight"
            blocks = state[key].detach().chunk(groups)
            wide = state[key].new_zeros(state[key].shape[0], module.in_features, *state[key].shape[2:])
            for rows, columns, block in zip(wide.chunk(groups), range(groups), blocks, strict=True):
                rows.chunk(groups, dim=1)[columns].copy_(block)
            state[key] = wide
    return state


def narrowed(net: nn.Module, state: Mapping[str, torch.Tensor], where: Path) -> dict[str, torch.Tensor]:
    """A saved adapter's tensors with each A grouped again.

    Args:
        net: peft's wrapper of the network.
        state: names as saved, without the adapter's.
        where: file, for messages.

    Raises:
        UserError: an A reads channels of other groups (saved by plain peft).
    """
    state = dict(state)
    for name, module in grouped(net).items():
        key, groups = f"{name}.lora_A.weight", module.get_base_layer().groups
        wide = state[key]
        rows = [part.chunk(groups, dim=1) for part in wide.chunk(groups)]
        narrow = torch.cat([row[group] for group, row in enumerate(rows)])
        if wide.count_nonzero() != narrow.count_nonzero():
            raise UserError(
                f"the update of grouped convolution '{name}' mixes its groups",
                where=where,
                expected="zeros between groups, as umdseg writes them",
            )
        state[key] = narrow.contiguous()
    return state
