"""Another window than the card's: smaller for small scans, larger where memory allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from umdseg.backbones.card import Card
from umdseg.errors import UserError


def windowed(card: Card, window: Sequence[int] | None) -> Card:
    """The card with another window, which training, inference and saved adapters then go by.

    Args:
        card: of the model.
        window: (X, Y, Z) voxels; None = the card's.

    Raises:
        UserError: the model takes windows of one size only, or an edge is no multiple of the card's divisor.
    """
    if window is None or tuple(window) == card.window:
        return card
    given = f"a window of {list(window)} voxels"
    if card.fixed_window:
        expected = f"null: model {card.name} takes {list(card.window)} and no other"
        raise UserError(given, where="model.window", expected=expected)
    if len(window) != 3 or any(edge < 1 or edge % card.divisor for edge in window):
        expected = f"three multiples of {card.divisor}, such as {list(card.window)}, for model {card.name}"
        raise UserError(given, where="model.window", expected=expected)
    return replace(card, window=(window[0], window[1], window[2]))
