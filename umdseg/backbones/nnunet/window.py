"""One network on one window: features and logits in three dimensions, also where the network has two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from umdseg.backbones.nnunet.part import Part


def encode_window(net: Any, image: torch.Tensor, part: Part) -> list[torch.Tensor]:
    """Skip connections (B, C', X', Y', Z') of windows (B, C, X, Y, Z), finest first.

    A 2-D network sees the slices along X one by one, as samples of one batch; X' is then X on all levels.
    Architectures that are not U-Nets keep the window itself; they run when decoded.
    """
    if not _split(net):
        return [image]
    if not part.flat:
        return list(net.encoder(image))
    return [_volume(level, len(image)) for level in net.encoder(_slices(image))]


def decode_window(net: Any, maps: Sequence[torch.Tensor], part: Part) -> torch.Tensor:
    """Logits (B, C, X, Y, Z) of all output channels from `encode_window`'s maps."""
    inputs = [_slices(level) for level in maps] if part.flat else list(maps)
    out: torch.Tensor = net.decoder(inputs) if _split(net) else net(inputs[0])
    return _volume(out, len(maps[0])) if part.flat else out


def _split(net: nn.Module) -> bool:
    return hasattr(net, "encoder") and hasattr(net, "decoder")


def _slices(volume: torch.Tensor) -> torch.Tensor:
    """(B, C, X, Y, Z) -> (B X, C, Y, Z)."""
    return volume.transpose(1, 2).flatten(0, 1)


def _volume(slices: torch.Tensor, batch: int) -> torch.Tensor:
    """(B X, C, Y, Z) -> (B, C, X, Y, Z)."""
    return slices.reshape(batch, -1, *slices.shape[1:]).transpose(1, 2)
