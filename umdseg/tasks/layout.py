"""Memory order of convolution weights."""

from __future__ import annotations

import torch
from torch import nn


def channels_last(module: nn.Module) -> None:
    """Put the weights of 3-D convolutions (O, I, X, Y, Z) into channels-last order, in place.

    Values, shapes and names stay; a convolution takes its order from its weights, so inputs need no change.
    """
    _ordered(module, torch.channels_last_3d)


def channels_first(module: nn.Module) -> None:
    """Undo `channels_last`: files of tensors hold contiguous ones only."""
    _ordered(module, torch.contiguous_format)


def _ordered(module: nn.Module, order: torch.memory_format) -> None:
    for parameter in module.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=order)
