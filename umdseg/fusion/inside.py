"""A backbone around another one, which decodes and knows structures as the inner one does."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from umdseg.backbones.base import Backbone, Features
from umdseg.vocabulary import Prompt


class Inside(Backbone):
    """What a fusion leaves to the backbone inside it.

    Attributes:
        inner: that backbone.
    """

    inner: Backbone

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (B, K, X, Y, Z), as the inner backbone."""
        return self.inner.decode(features, prompts)

    def dense(self, features: Features) -> torch.Tensor:
        """As the inner backbone's."""
        return self.inner.dense(features)

    def class_vectors(self, structures: Sequence[str]) -> torch.Tensor:
        """As the inner backbone's."""
        return self.inner.class_vectors(structures)

    def class_logits(self, dense: torch.Tensor, structures: Sequence[str]) -> torch.Tensor:
        """As the inner backbone's."""
        return self.inner.class_logits(dense, structures)

    def merge(
        self, automatic: torch.Tensor, clicked: torch.Tensor, prompt: Prompt, affine: torch.Tensor
    ) -> torch.Tensor:
        """As the inner backbone's."""
        return self.inner.merge(automatic, clicked, prompt, affine)

    @property
    def has_dense(self) -> bool:
        """Whether whole-body inference may stitch `dense`."""
        return self.inner.has_dense

    def knows(self, structure: str) -> bool:
        """As the inner backbone."""
        return self.inner.knows(structure)

    def index(self, structure: str) -> int:
        """As the inner backbone."""
        return self.inner.index(structure)

    def add_structures(self, structures: Sequence[str]) -> dict[str, int]:
        """As the inner backbone."""
        return self.inner.add_structures(structures)

    def forget_structures(self) -> None:
        """As the inner backbone."""
        self.inner.forget_structures()
