"""From a model's card to the numbers preprocessing needs."""

from __future__ import annotations

from collections.abc import Sequence

from umdseg.backbones.card import Card
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
