"""What every model refuses alike: prompts it does not take, windows that do not fit it."""

from __future__ import annotations

from collections.abc import Sequence

from umdseg.backbones.card import Card
from umdseg.errors import UserError
from umdseg.prompts.contours import check_contour
from umdseg.vocabulary import Prompt

Shape = tuple[int, int, int]


def check_prompts(card: Card, prompts: Sequence[Prompt]) -> None:
    """Refuse prompts that a model does not take.

    Raises:
        UserError: a prompt of another kind, a box prompt without a box, a lasso or scribble prompt without
            one, or with one that marks nothing.
    """
    for prompt in prompts:
        if prompt.kind not in card.prompts:
            raise UserError(
                f"model {card.name} takes no '{prompt.kind}' prompts",
                expected=f"one of {', '.join(card.prompts)}",
            )
        if prompt.kind == "box" and prompt.box is None:
            raise UserError(
                f"the box prompt of {prompt.structure} has no box",
                expected="its lower and upper corner in patient millimetres",
            )
        if prompt.kind in ("lasso", "scribble"):
            _check_contours(card, prompt)


def _check_contours(card: Card, prompt: Prompt) -> None:
    kinds = [contour.kind for contour in prompt.contours]
    if prompt.kind not in kinds:
        raise UserError(
            f"the {prompt.kind} prompt of {prompt.structure} has no {prompt.kind}",
            expected="a contour in patient millimetres, closed for a lasso, open for a scribble",
        )
    for kind, contour in zip(kinds, prompt.contours, strict=True):
        if kind not in card.prompts:
            raise UserError(
                f"model {card.name} takes no {kind}, as the {prompt.kind} prompt of {prompt.structure} has",
                expected=f"one of {', '.join(card.prompts)}",
            )
        check_contour(contour, prompt.structure)


def check_edges(card: Card, shape: Shape) -> None:
    """Refuse windows (X, Y, Z) whose edges the network cannot halve as often as it does.

    Raises:
        UserError: an edge that is no multiple of the card's divisor.
    """
    if any(edge % card.divisor for edge in shape):
        raise UserError(
            f"a window of {shape} voxels does not fit model {card.name}",
            expected=f"edges that are multiples of {card.divisor}",
        )


def check_size(card: Card, shape: Shape) -> None:
    """Refuse windows (X, Y, Z) of any size but the card's, for networks with learned positions.

    Raises:
        UserError: another size.
    """
    if shape != card.window:
        raise UserError(
            f"a window of {shape} voxels does not fit model {card.name}",
            expected=f"{card.window}; the network has positions for no other multiples",
        )
