"""Bottlenecks that mix the slices of a stack at each position."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn
from torch.nn import functional

from umdseg.adapters.bottleneck import silence
from umdseg.backbones.sam2d.groups import Groups


class Across(nn.Module, ABC):
    """Down, something across slices, GELU, up.

    Args:
        features: of the block.
        width: of the bottleneck.
        groups: says how many consecutive slices of the batch belong together.
    """

    def __init__(self, features: int, width: int, groups: Groups) -> None:
        super().__init__()
        self._groups = groups
        self.down, self.act, self.up = nn.Linear(features, width), nn.GELU(), nn.Linear(width, features)
        silence(self.up)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is added to a block's output (N, ..., features), N slices of one stack after another."""
        low: torch.Tensor = self.down(x)
        stacks = low.reshape(-1, self._groups.consecutive, *low.shape[1:])
        # (stacks, slices, positions, width)
        mixed = self.mix(stacks.flatten(2, -2)).reshape(stacks.shape)
        added: torch.Tensor = self.up(self.act(mixed.flatten(0, 1)))
        return added

    @abstractmethod
    def mix(self, stacks: torch.Tensor) -> torch.Tensor:
        """(B, Z, positions, width) -> the same shape, mixed along Z."""


class AcrossByConv(Across):
    """A convolution over each slice and its two neighbours; beyond the group there is nothing (zeros)."""

    def __init__(self, features: int, width: int, groups: Groups) -> None:
        super().__init__(features, width, groups)
        self.conv = nn.Conv1d(width, width, 3, padding=1)

    def mix(self, stacks: torch.Tensor) -> torch.Tensor:
        """(B, Z, positions, width) -> the same shape."""
        b, z, p, width = stacks.shape
        lines = stacks.permute(0, 2, 3, 1).reshape(b * p, width, z)
        mixed: torch.Tensor = self.conv(lines)
        return mixed.reshape(b, p, width, z).permute(0, 3, 1, 2)


class AcrossByAttention(Across):
    """Self-attention along each position's slices, with a learned bias by their distance (signed)."""

    def __init__(self, features: int, width: int, groups: Groups, most: int) -> None:
        super().__init__(features, width, groups)
        self.qkv = nn.Linear(width, 3 * width)
        self.distance = nn.Parameter(torch.zeros(2 * most - 1))

    def mix(self, stacks: torch.Tensor) -> torch.Tensor:
        """(B, Z, positions, width) -> the same shape."""
        q, k, v = self.qkv(stacks.transpose(1, 2)).chunk(3, dim=-1)
        number = torch.arange(stacks.shape[1], device=stacks.device)
        middle = len(self.distance) // 2
        bias = self.distance[number[None] - number[:, None] + middle].to(q.dtype)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)
