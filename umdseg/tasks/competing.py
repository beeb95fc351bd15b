"""All classes of a network -> the structures a dataset tells about, and everything else as background."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from umdseg.backbones.base import Backbone
from umdseg.errors import UserError


def competing_logits(backbone: Backbone, dense: torch.Tensor, structures: Sequence[str]) -> torch.Tensor:
    """Logits of the structures and of all else together, whose softmax adds up the network's own.

    Labels of one dataset say nothing about the organs of another: what the network calls a rib is background
    here, and must not be punished as such. Adding up probabilities is a logsumexp of logits (the marginal
    loss of Shi et al., arXiv 2007.03868).

    Args:
        backbone: its classes compete.
        dense: (B, D, X, Y, Z) logits of all classes.
        structures: known to the backbone; a group counts as the sum of its members, save those that are
            asked for themselves.

    Returns:
        (B, 1 + K, X, Y, Z), the background first.

    Raises:
        UserError: a structure has no class left that is not another's.
    """
    card = backbone.card
    single = {backbone.index(name) for name in structures if name not in card.groups}
    own: list[list[int]] = []
    taken: set[int] = set()
    for name in structures:
        channels = [backbone.index(member) for member in card.members(name)]
        if name in card.groups:
            channels = [channel for channel in channels if channel not in single]
        if not channels or taken.intersection(channels):
            raise UserError(
                f"model {card.name} has the same classes for '{name}' and for another structure",
                where="data.structures",
                expected="structures that do not overlap in the model",
            )
        taken.update(channels)
        own.append(channels)
    rest = [channel for channel in range(dense.shape[1]) if channel not in taken]
    return torch.stack([torch.logsumexp(dense[:, channels], dim=1) for channels in (rest, *own)], dim=1)
