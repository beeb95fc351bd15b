"""Answers of a model to one batch, and what they should be."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from umdseg.tasks.loss import competing_loss, prompt_loss
from umdseg.tasks.options import FitOptions
from umdseg.vocabulary import Batch


@dataclass(frozen=True)
class Part:
    """Answers of one pass, and what they should be.

    Attributes:
        logits: (B, K, X, Y, Z); (B, 1 + K, X, Y, Z) with the background first where classes compete.
        target: (B, K, X, Y, Z) bool.
        batch: the samples.
        asked: names of the K structures.
        told: (B, K) where the target is known; None = everywhere.
        competing: whether the classes compete.
    """

    logits: torch.Tensor
    target: torch.Tensor
    batch: Batch
    asked: tuple[str, ...]
    told: torch.Tensor | None = None
    competing: bool = False

    def loss(self, options: FitOptions) -> torch.Tensor:
        """Scalar."""
        function = competing_loss if self.competing else prompt_loss
        return function(self.logits, self.target, options, self.told)
