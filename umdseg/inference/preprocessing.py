"""From a model's card to the numbers preprocessing needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from umdseg.backbones.card import Card
from umdseg.data.geometry import Grid
from umdseg.data.preprocess import Preprocessing
from umdseg.errors import UserError

Shape = tuple[int, int, int]


def preprocessing(card: Card, window: Shape | None = None) -> Preprocessing:
    """The card's preprocessing; volumes are padded up to one window (voxels, None = the card's)."""
    return Preprocessing(
        spacing=card.spacing,
        orientation=card.orientation,
        intensity=card.intensity,
        crop=card.crop,
        min_shape=window or card.window,
    )


def check_window(card: Card, window: Sequence[int] | int | None) -> Shape:
    """The window to use (None = the card's, one number = a cube).

    Raises:
        UserError: not three positive multiples of the card's divisor.
    """
    if window is None:
        return card.window
    edges = [window] * 3 if isinstance(window, int) else list(window)
    if len(edges) != 3 or any(edge <= 0 or edge % card.divisor for edge in edges):
        raise UserError(
            f"a window of {edges} voxels does not fit model {card.name}",
            expected=f"three multiples of {card.divisor}, such as {list(card.window)}",
        )
    return edges[0], edges[1], edges[2]


def pad(image: torch.Tensor, grid: Grid, shape: Shape) -> tuple[torch.Tensor, Grid]:
    """Pad (1, X, Y, Z) with 0 on both sides up to `shape`; the grid follows."""
    missing = [max(wanted - has, 0) for wanted, has in zip(shape, grid.shape, strict=True)]
    low = [n // 2 for n in missing]
    high = [n - b for n, b in zip(missing, low, strict=True)]
    padded = torch.nn.functional.pad(image, [low[2], high[2], low[1], high[1], low[0], high[0]])
    stop = [has + more for has, more in zip(grid.shape, high, strict=True)]
    return padded, grid.crop((-low[0], -low[1], -low[2]), (stop[0], stop[1], stop[2]))
