"""A volume session that answers every prompt by itself and samples the answers on any grid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch

from umdseg.backbones.asked import Asked
from umdseg.backbones.base import Backbone
from umdseg.backbones.precision import autocast
from umdseg.backbones.slabs import slabs
from umdseg.data.geometry import Grid
from umdseg.vocabulary import Origin, Prompt

Answer = TypeVar("Answer")


class PromptedSession(ABC, Generic[Answer]):
    """Keeps what was asked and what was answered; a session says how it answers.

    Args:
        backbone: in eval mode.
        native: the scan's own grid.
        origin: chooses among adapters.
        precision: auto, fp32, bf16.

    Raises:
        UserError: unknown precision.
    """

    def __init__(self, backbone: Backbone, native: Grid, origin: Origin | str, precision: str) -> None:
        self.native = native
        self._model, self._origin, self._precision = backbone, Origin.of(origin), precision
        self._device = next(backbone.parameters()).device
        autocast(precision, self._device)
        self._asked, self._found = Asked(), dict[Prompt, Answer]()

    @abstractmethod
    def _answer(self, prompt: Prompt) -> Answer:
        """Run the network."""

    @abstractmethod
    def _sampler(self, answer: Answer) -> Callable[[Grid], torch.Tensor]:
        """Logits (X, Y, Z) of an answer on any part of space."""

    def prompt(self, prompts: Sequence[Prompt]) -> None:
        """Ask; a prompt replaces the earlier one of the same structure (points are given whole).

        Raises:
            UserError: a prompt that the model does not take.
        """
        self._model.check_prompts(prompts)
        self._asked.add(prompts)

    def undo(self) -> None:
        """Take the last call of `prompt` back."""
        self._asked.undo()

    @torch.no_grad()
    def scores(
        self, structures: Sequence[str], grid: Grid | None = None
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Logits resampled linearly to `grid` (None: the scan's own) as (z slice, (K, X, Y, dz) float32).

        Raises:
            UserError: a structure that nobody prompted for.
        """
        asked = self._asked.of(structures)
        self._model.check_prompts(asked)
        with self._model.routed(self._origin), autocast(self._precision, self._device):
            for prompt in asked:
                if prompt not in self._found:
                    self._found[prompt] = self._answer(prompt)
        samplers = [self._sampler(self._found[prompt]) for prompt in asked]
        self._found = self._asked.kept(self._found)
        for place, part in slabs(grid or self.native, len(asked) + 4):
            yield place, torch.stack([sample(part) for sample in samplers])
