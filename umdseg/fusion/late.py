"""fusion=late: every modality is answered by itself; the answers are mixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from umdseg.backbones.base import Backbone, Features
from umdseg.fusion.base import Fused
from umdseg.fusion.options import FusionOptions
from umdseg.vocabulary import Modality, Prompt

# column of the modality -> samples that have it, their logits
Answers = dict[int, tuple[torch.Tensor, torch.Tensor]]


@dataclass
class LateOptions(FusionOptions):
    """Late fusion has no options of its own."""

    name: str = "late"


@dataclass
class LateFeatures(Features):
    """What each modality's encoder made of a batch.

    Attributes:
        found: column -> samples that have the modality, their features.
        lead: (B,) column of the modality that each sample starts from.
    """

    found: Mapping[int, tuple[torch.Tensor, Features]] = field(default_factory=dict)
    lead: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

    def sample(self, index: int) -> LateFeatures:
        """The features of one sample of the batch (B becomes 1)."""
        own = {}
        for column, (rows, features) in self.found.items():
            place = (rows == index).nonzero()[:, 0]
            if len(place):
                own[column] = rows.new_zeros(1), features.sample(int(place[0]))
        one = slice(index, index + 1)
        return LateFeatures([], self.affine[one], self.shape, {}, found=own, lead=self.lead[one])


class LateFusion(Fused):
    """Logits are mixed per structure: lead + sum over other present m of w_m (m - lead), w being 0 at first.

    Nothing else is shared between modalities, so this fits every model that gives logits; its weights say
    directly which modality is believed on which structure.

    Args:
        inner, options, modalities, order: see `Fused`.
        structures: those that get weights of their own; all others share one.
    """

    kind = "late"
    Options: ClassVar[type[FusionOptions]] = LateOptions
    # a few numbers on the scale of 0 to 1
    default_lr = 2e-2
    mixes = True

    def __init__(
        self,
        inner: Backbone,
        options: FusionOptions,
        modalities: Sequence[Modality],
        order: Sequence[Modality],
        structures: Sequence[str] = (),
    ) -> None:
        super().__init__(inner, options, modalities, order)
        self.structures = tuple(structures)
        device = next(inner.net.parameters()).device
        # of the others only: the first in order leads where it is there
        weights = torch.zeros(len(self.modalities) - 1, len(self.structures) + 1, device=device)
        self.parts = nn.ParameterDict({"weights": nn.Parameter(weights)})

    def fuse(
        self, image: torch.Tensor, affine: torch.Tensor | None, present: torch.Tensor, lead: torch.Tensor
    ) -> Features:
        """Encode each modality; nothing is mixed yet."""
        found = self.each(image, affine, present)
        first = next(iter(found.values()))[1]
        whole = first.affine.new_zeros(len(lead), 4, 4)
        for rows, features in found.values():
            whole[rows.to(whole.device)] = features.affine
        return LateFeatures([], whole, first.shape, {}, found=found, lead=lead)

    @property
    def has_dense(self) -> bool:
        """Only where classes compete: their logits are mixed before they are compared."""
        return self._competing()

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (B, K, X, Y, Z), mixed."""
        names = [prompt.structure for prompt in prompts]
        if not isinstance(features, LateFeatures):
            return self.inner.decode(features, prompts)
        if self._competing() and all(prompt.kind == "auto" for prompt in prompts):
            return self.inner.class_logits(self.dense(features), names)
        return self._mixed(features, lambda own: self.inner.decode(own, prompts), self._weights(names))

    def answered(
        self, features: Features, structures: Sequence[str], step: Callable[[Features], torch.Tensor]
    ) -> torch.Tensor:
        """Logits (B, K, X, Y, Z) of the step taken for each modality, mixed."""
        if not isinstance(features, LateFeatures):
            return step(features)
        return self._mixed(features, step, self._weights(structures))

    def shares(self, structure: str) -> dict[Modality, float]:
        """How far each given modality but the leading one is believed on a structure."""
        weights = self._weights([structure])[:, 0].tolist()
        others = [m for m in self.given if m != self.leading]
        return {m: float(weights[self.order.index(self.modalities.index(m)) - 1]) for m in others}

    def dense(self, features: Features) -> torch.Tensor:
        """(B, D, X, Y, Z) mixed logits of all competing classes."""
        if not isinstance(features, LateFeatures):
            return self.inner.dense(features)
        return self._mixed(features, self.inner.dense, None)

    def _competing(self) -> bool:
        return self.inner.card.output == "softmax" and self.inner.has_dense

    def _mixed(
        self, features: LateFeatures, answer: Callable[[Features], torch.Tensor], weights: torch.Tensor | None
    ) -> torch.Tensor:
        found: Answers = {}
        for column, (rows, own) in features.found.items():
            with self.of_modality(self.modalities[column]):
                found[column] = rows, answer(own)
        lead = self._lead(found, features.lead)
        weights = self._class_weights(lead.shape[1]) if weights is None else weights
        # where nothing is mixed the weights take part all the same, with a gradient of 0
        out = lead + 0 * weights.sum().to(lead.dtype)
        for column, (rows, logits) in found.items():
            other = features.lead[rows] != column
            if bool(other.any()):
                places = rows[other]
                share = weights[self.order.index(column) - 1].reshape(1, -1, 1, 1, 1).to(lead.dtype)
                out = out.index_add(0, places, share * (logits[other].to(lead.dtype) - lead[places]))
        return out

    @staticmethod
    def _lead(found: Answers, lead: torch.Tensor) -> torch.Tensor:
        first = next(iter(found.values()))[1]
        out = first.new_zeros(len(lead), *first.shape[1:])
        for column, (rows, logits) in found.items():
            own = lead[rows] == column
            if bool(own.any()):
                out = out.index_copy(0, rows[own], logits[own].to(out.dtype))
        return out

    def _weights(self, names: Sequence[str]) -> torch.Tensor:
        """(M - 1, K) of structures asked for, of the modalities after the first in `order`."""
        table: torch.Tensor = self.parts["weights"]  # type: ignore[index]
        known = {name: i for i, name in enumerate(self.structures)}
        return table[:, [known.get(name, len(known)) for name in names]]

    def _class_weights(self, classes: int) -> torch.Tensor:
        """(M - 1, D) of all classes, the background among those that share one weight."""
        by_index = {
            self.inner.index(name): name
            for name in self.structures
            if self.inner.knows(name) and name not in self.inner.card.groups
        }
        return self._weights([by_index.get(index, "") for index in range(classes)])
