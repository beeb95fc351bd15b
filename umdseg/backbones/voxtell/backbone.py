"""VoxTell (package `voxtell`): a residual U-Net whose decoder is led by the embedding of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from umdseg.backbones.base import Backbone, Features
from umdseg.backbones.card import Card
from umdseg.backbones.guards import check_size
from umdseg.backbones.voxtell.bank import Bank
from umdseg.backbones.voxtell.session import VoxtellSession
from umdseg.data.geometry import Volume
from umdseg.errors import UserError
from umdseg.vocabulary import Origin, Prompt


class Voxtell(Backbone):
    """Whole scans go through the package's own predictor; windows are encoded once for any texts.

    Attributes:
        bank: texts and their embeddings.
    """

    def __init__(self, card: Card, net: nn.Module, bank: Bank) -> None:
        super().__init__()
        self.card, self.net, self.bank, self.new_structures = card, net, bank, {}

    def encode(self, image: torch.Tensor, affine: torch.Tensor | None = None) -> Features:
        """Encode windows (B, 1, X, Y, Z) of exactly the card's size (the network's positions are fixed)."""
        shape = (int(image.shape[2]), int(image.shape[3]), int(image.shape[4]))
        check_size(self.card, shape)
        if affine is None:
            affine = torch.eye(4, dtype=torch.float64).expand(image.shape[0], 4, 4)
        # an adapter may have wrapped the network; its wrapper passes attributes through
        encoder = cast(Any, self.net).encoder
        return Features(list(encoder(image)), affine, shape)

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (B, K, X, Y, Z); of groups, the highest of their members counts."""
        from voxtell.model.voxtell_model import VoxTellModel

        asked = [self.texts(prompt) for prompt in prompts]
        texts = list(dict.fromkeys(text for group in asked for text in group))
        first = features.maps[0]
        vectors = self.bank.embeddings(texts).to(first.device).expand(first.shape[0], -1, -1)
        logits = VoxTellModel.forward(_Encoded(self.net, features.maps), None, vectors)
        planes = [logits[:, [texts.index(text) for text in group]].amax(dim=1) for group in asked]
        return torch.stack(planes, dim=1)

    def session(self, volume: Volume, origin: Origin | str, *, overlap: float | None, precision: str) -> Any:
        """The package's predictor on the scan's own voxels."""
        return VoxtellSession(self, volume, origin, overlap, precision)

    def texts(self, prompt: Prompt) -> list[str]:
        """What a prompt asks the network for: its text, or the names of the structure or its members.

        Raises:
            UserError: a prompt of another kind, a structure or text that the bank does not have.
        """
        super().check_prompts([prompt])
        if prompt.structure in self.card.groups and self._by_name(prompt):
            return [self.bank.names[member] for member in self.card.groups[prompt.structure]]
        if prompt.kind == "auto":
            self.card.index(prompt.structure)
            return [self.bank.names[prompt.structure]]
        return [self.bank.text(prompt)]

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Refuse what `texts` refuses."""
        for prompt in prompts:
            self.texts(prompt)

    def add_structures(self, structures: Sequence[str]) -> dict[str, int]:
        """Known structures only: a new one needs an embedding of its name.

        Raises:
            UserError: one of them is new.
        """
        new = [name for name in structures if not self.knows(name)]
        if new:
            raise UserError(
                f"model {self.card.name} cannot learn new structures ({', '.join(new)})",
                expected="structures whose names its embedding bank has",
            )
        return {name: self.index(name) for name in structures if name not in self.card.groups}

    @staticmethod
    def _by_name(prompt: Prompt) -> bool:
        return prompt.kind == "auto" or prompt.text in (None, prompt.structure.replace("_", " "))


class _Encoded:
    """Stands in for the network in its own `forward`, with the image encoded already."""

    def __init__(self, net: nn.Module, maps: Sequence[torch.Tensor]) -> None:
        self._net, self._maps = net, maps

    def encoder(self, image: None) -> Sequence[torch.Tensor]:
        return self._maps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)
