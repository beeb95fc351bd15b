"""The slices of a scan in one plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from umdseg.backbones.sam2d.groups import Group
from umdseg.backbones.sam2d.kept import Kept
from umdseg.data.geometry import Grid

if TYPE_CHECKING:
    from umdseg.backbones.sam2d.backbone import Sam2d


class Stack:
    """A scan as pictures of one plane; each is embedded once while memory allows.

    Args:
        backbone: in eval mode.
        image: (X, Y, Z) uint8; slices lie along the last axis, X runs to the right, Y downwards.
        grid: place of `image`.
        kept: where embeddings are kept; may be shared between planes.

    Attributes:
        layout: how its slices meet the network's input.
        image: as given.
        grid: place of the stack.
    """

    def __init__(self, backbone: Sam2d, image: torch.Tensor, grid: Grid, kept: Kept) -> None:
        self.grid = grid
        self.device = next(backbone.parameters()).device
        self.image, self._backbone, self._kept = image, backbone, kept
        x, y, _ = grid.spacing
        self.layout = backbone.layout((grid.shape[1], grid.shape[0]), (y, x))

    def pixels(self, number: int) -> torch.Tensor:
        """Network input (1, 3, edge, edge) of one slice."""
        shown = pictures(self.image, number, self._backbone.options.channels)
        return self.layout.pixels(shown).to(self.device)

    def embedding(self, number: int) -> list[torch.Tensor]:
        """Embeddings of one slice, each map (1, C, h, w)."""
        if not self._backbone.groups.together:
            return self._kept.get((id(self), number), lambda: self._backbone.embed(self.pixels(number)))
        groups = self._backbone.groups.of(self.grid.shape[2])
        group = next(one for one in groups if one.first <= number < one.last)
        # kept as a group: its slices are made together
        maps = self._kept.get((id(self), group), lambda: self._embedded(group))
        return [m[number - group.first][None] for m in maps]

    def _embedded(self, group: Group) -> list[torch.Tensor]:
        """Embeddings (Z, C, h, w) of the slices that are taken from a group."""
        pixels = torch.cat([self.pixels(number) for number in range(group.start, group.stop)])
        kept = slice(group.first - group.start, group.last - group.start)
        # copied, so that the slices left out are not kept with them
        return [m[0, kept].clone() for m in self._backbone.embed_group(pixels[None])]


def pictures(image: torch.Tensor, number: int, channels: str) -> torch.Tensor:
    """(1, C, rows, columns) picture of one slice of (X, Y, Z).

    Args:
        image: (X, Y, Z).
        number: of the slice.
        channels: repeat (C = 1, shown three times), or neighbours (C = 3; beyond the last slice that again).
    """
    last = image.shape[2] - 1
    numbers = [number]
    if channels == "neighbours":
        numbers = [max(number - 1, 0), number, min(number + 1, last)]
    return image[..., numbers].permute(2, 1, 0)[None]


def whole(image: torch.Tensor) -> torch.Tensor:
    """Values from 0 to 255 cut to whole numbers (uint8), as the authors' scripts do."""
    # resampling noise must not push a whole number below itself
    return (image.detach().float() + 1e-3).clamp(0, 255).to(torch.uint8)
