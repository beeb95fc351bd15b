"""A module of the user's own behind the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from umdseg.backbones.base import Backbone, Features
from umdseg.backbones.card import Card
from umdseg.backbones.weights import State
from umdseg.data.geometry import Volume
from umdseg.errors import UserError
from umdseg.vocabulary import Modality, Origin, Prompt


class TorchModule(Backbone):
    """(B, C, X, Y, Z) in, logits (B, D, X, Y, Z) out; the whole module runs when a window is encoded.

    Attributes:
        channels: modality of each input channel; empty: one channel, of any modality.
    """

    def __init__(self, card: Card, net: nn.Module, channels: Sequence[Modality] = ()) -> None:
        super().__init__()
        self.card, self.net, self.channels = card, net, tuple(channels)
        self.new_structures = {}

    def encode(self, image: torch.Tensor, affine: torch.Tensor | None = None) -> Features:
        """Run the module on windows (B, C, X, Y, Z); its logits are the only map.

        Raises:
            UserError: channels or edges that do not fit, or an answer that is no map of logits on the window.
        """
        shape = (int(image.shape[2]), int(image.shape[3]), int(image.shape[4]))
        wanted = max(len(self.channels), 1)
        if image.shape[1] != wanted or any(edge % self.card.divisor for edge in shape):
            raise UserError(
                f"a window of {image.shape[1]} channels and {shape} voxels does not fit "
                f"model {self.card.name}",
                expected=f"{wanted} channels, edges that are multiples of {self.card.divisor}",
            )
        if affine is None:
            spacing = self.card.spacing or (1.0, 1.0, 1.0)
            affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
            affine = affine.expand(image.shape[0], 4, 4)
        out = self.net(image)
        # with deep supervision the full resolution comes first
        logits = out[0] if isinstance(out, (list, tuple)) else out
        self._check(logits, image)
        return Features([logits], affine, shape)

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (B, K, X, Y, Z), by class; a group of sigmoid classes counts as their largest."""
        for prompt in prompts:
            if prompt.kind != "auto":
                raise UserError(
                    f"model {self.card.name} takes no '{prompt.kind}' prompts", expected="auto prompts"
                )
        names = [prompt.structure for prompt in prompts]
        if self.card.output == "softmax":
            return self.class_logits(self.dense(features), names)
        groups = [[self.index(member) for member in self.card.members(name)] for name in names]
        return torch.stack([self.dense(features)[:, group].amax(dim=1) for group in groups], dim=1)

    def dense(self, features: Features) -> torch.Tensor:
        """(B, D, X, Y, Z) the module's own logits; of independent ones, up to the last the card names."""
        logits = features.maps[0]
        return logits if self.card.output == "softmax" else logits[:, : self._named()]

    def class_vectors(self, structures: Sequence[str]) -> torch.Tensor:
        """(K, D) each picks one channel out of `dense`."""
        indices = torch.tensor([self.index(name) for name in structures])
        rows = nn.functional.one_hot(indices, self._named())
        return rows.to(next(self.net.parameters()).device, torch.float32)

    @property
    def takes(self) -> tuple[Modality, ...]:
        """The card's channels, where they are more than one."""
        return self.channels if len(self.channels) > 1 else ()

    def session(self, volume: Volume, origin: Origin | str, *, overlap: float | None, precision: str) -> Any:
        """None: shared windows do, for modules that take one scan.

        Raises:
            UserError: the module takes several scans of one person.
        """
        del volume, overlap, precision
        if self.takes:
            raise UserError(
                f"model {self.card.name} takes {' and '.join(self.channels)} of one person together; "
                f"only {Origin.of(origin).modality} was given",
                expected="umdseg.inference.together.open_together with all of them",
            )

    def add_structures(self, structures: Sequence[str]) -> dict[str, int]:
        """Known structures only: nobody but the module knows how to add an output.

        Raises:
            UserError: one of them is new.
        """
        new = [name for name in structures if not self.knows(name)]
        if new:
            raise UserError(
                f"model {self.card.name} cannot learn new structures ({', '.join(new)})",
                expected=f"among {', '.join(self.card.structures)}",
            )
        return {name: self.index(name) for name in structures if name not in self.card.groups}

    def convert(self, state: State) -> State:
        """Counters of batches are added where the file has none.

        torch before 0.4.1 saved none; `BatchNorm` itself reads such files so, and they play no part in
        inference.
        """
        missing = [key for key in self.net.state_dict() if key.endswith(".num_batches_tracked")]
        missing = [key for key in missing if key not in state and _beside(key) in state]
        return {**state, **{key: torch.tensor(0) for key in missing}}

    def _named(self) -> int:
        return max(self.card.structures.values()) + 1

    def _check(self, logits: object, image: torch.Tensor) -> None:
        if not isinstance(logits, torch.Tensor):
            found = type(logits).__name__
        elif logits.shape[2:] != image.shape[2:] or logits.shape[0] != image.shape[0]:
            found = f"a tensor of shape {tuple(logits.shape)}"
        elif logits.shape[1] < self._named():
            found = f"{logits.shape[1]} channels"
        else:
            return
        raise UserError(
            f"the module of {self.card.name} answers a window of {tuple(image.shape)} with {found}",
            expected=f"logits of at least {self._named()} channels on the window, as the card says",
        )


def _beside(counter: str) -> str:
    return counter.removesuffix("num_batches_tracked") + "running_mean"
