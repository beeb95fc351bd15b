"""Memory order of convolution weights."""

from __future__ import annotations

import torch
from torch import nn


def channels_last(module: nn.Module) -> None:
    """Put the weights of 3-D convolutions (O, I, X, Y, Z) into channels-last order, in place.

    Values, shapes and names stay; a convolution takes its order from its weights, so that inputs need no change.
    Weights in storage order never change the result beyond rounding.
    """
    for parameter in module.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
