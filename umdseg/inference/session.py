"""What evaluation, click loops and reports see of a model on one volume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from umdseg.data.geometry import Grid
from umdseg.vocabulary import Prompt


class VolumeSession(Protocol):
    """One volume under one model."""

    @property
    def native(self) -> Grid:
        """The scan's own grid."""
        ...

    def prompt(self, prompts: Sequence[Prompt]) -> None:
        """Ask; a prompt replaces the earlier one of the same structure (points are given whole)."""
        ...

    def undo(self) -> None:
        """Take the last call of `prompt` back."""
        ...

    def scores(
        self, structures: Sequence[str], grid: Grid | None = None
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Logits resampled linearly to `grid` (None: the scan's own), slab by slab.

        Structures without a prompt are asked for by class. Yields (z slice, (K, X, Y, dz) float32).
        """
        ...
