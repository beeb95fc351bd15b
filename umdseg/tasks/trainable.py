"""What a task can fit."""

from __future__ import annotations

from collections.abc import Sequence

from umdseg.backbones.base import Backbone
from umdseg.errors import UserError


def refuse_untrainable(backbone: Backbone, method: str, structures: Sequence[str]) -> None:
    """Refuse what cannot be fitted.

    Args:
        backbone: its adapter injected.
        method: the adapter's name.
        structures: trained on.

    Raises:
        UserError: finished masks as answers, nothing that requires gradients, or no known structure.
    """
    if backbone.card.output == "mask":
        raise UserError(
            f"model {backbone.card.name} gives finished masks, which have no gradient",
            where="adapter",
            expected="adapter=none, to score it as it is",
        )
    if not any(p.requires_grad for p in backbone.parameters()):
        raise UserError(f"adapter={method} leaves nothing to train", where="adapter", expected="lora or full")
    if not any(backbone.knows(name) for name in structures):
        raise UserError(
            f"model {backbone.card.name} knows none of {', '.join(structures)}", where="data.structures"
        )
