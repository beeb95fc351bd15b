"""Which modalities a sample has: the leading one, dropping some, all subsets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch

from umdseg.data.geometry import Grid
from umdseg.errors import UserError
from umdseg.vocabulary import Modality

if TYPE_CHECKING:
    from umdseg.fusion.base import Fused


def leads(present: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """The modality that each sample starts from: the first in `order` that it has.

    Args:
        present: (B, M) bool.
        order: columns of `present`, the reference first.

    Returns:
        (B,) column.

    Raises:
        UserError: a sample has none.
    """
    ranked = present[:, list(order)]
    if not bool(ranked.any(dim=1).all()):
        raise UserError("a sample without any modality", expected="at least one scan of each subject")
    # argmax of equal values is the first on every device only for integers that differ
    rank = torch.arange(len(order), 0, -1, device=present.device)
    first = (ranked * rank).argmax(dim=1)
    return torch.tensor(list(order), device=present.device)[first]


def reached(fused: Fused, affine: torch.Tensor | None, image: torch.Tensor) -> torch.Tensor:
    """Which of the given modalities reach windows (B, len(given), X, Y, Z): (B, len(given)) bool.

    All of them where nobody said where the scans lie (`Fused.part`) or where the windows do.
    """
    if affine is None or not fused.fields:
        return torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
    shape = (int(image.shape[2]), int(image.shape[3]), int(image.shape[4]))
    places = [Grid(shape, one.to("cpu", torch.float64).numpy()) for one in affine]
    found = [[fused.reaches(m, place) for m in fused.given] for place in places]
    return torch.tensor(found, device=image.device)


def drop(present: torch.Tensor, probability: float, rng: np.random.Generator) -> torch.Tensor:
    """Leave modalities out at random, each with `probability`, but never all of a sample.

    A sample that would be left with none keeps one of its own, each equally likely.
    Source: modality dropout, Neverova et al., ModDrop, arXiv 1501.00102, section 4.2.

    Args:
        present: (B, M) bool.
        probability: of leaving one out.
        rng: decides everything.
    """
    has = present.cpu().numpy()
    kept = has & (rng.random(has.shape) >= probability)
    for row in np.flatnonzero(~kept.any(axis=1) & has.any(axis=1)):
        kept[row, rng.choice(np.flatnonzero(has[row]))] = True
    return torch.from_numpy(kept).to(present.device)


def subsets(modalities: Sequence[Modality]) -> list[tuple[Modality, ...]]:
    """All non-empty subsets, 2^M - 1, small ones first, each in the given order."""
    names = list(modalities)
    return [part for size in range(1, len(names) + 1) for part in combinations(names, size)]
