"""The contract every backbone keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import nn

from umdseg.backbones.card import Card
from umdseg.backbones.guards import check_edges, check_prompts
from umdseg.backbones.loaded import Loaded
from umdseg.backbones.options import ModelOptions
from umdseg.data.geometry import Volume
from umdseg.vocabulary import Modality, Origin, Prompt

# logit of voxels nobody looked at (a probability of 5e-5): outside the scan, air, beyond a click's window
BACKGROUND = -10.0


@dataclass
class Features:
    """What the encoder made of an image.

    Attributes:
        maps: feature maps, finest first, each (B, C, X', Y', Z').
        affine: (B, 4, 4), voxel index of the encoded window -> patient millimetres.
        shape: (X, Y, Z) of the encoded window.
        state: whatever the decoder keeps between prompts (decoded maps, embeddings).
    """

    maps: list[torch.Tensor]
    affine: torch.Tensor
    shape: tuple[int, int, int]
    state: dict[str, Any] = field(default_factory=dict)

    def sample(self, index: int) -> Features:
        """The features of one sample of the batch (B becomes 1)."""
        one = slice(index, index + 1)
        state = {k: v[one] if isinstance(v, torch.Tensor) else v for k, v in self.state.items()}
        return Features([m[one] for m in self.maps], self.affine[one], self.shape, state)


class Backbone(nn.Module, ABC):
    """An official network behind one contract: encode an image once, decode any prompts.

    Attributes:
        card: the facts of the weights.
        net: the official network (adapters replace modules inside it).
        random_weights: True until weights are loaded; said plainly wherever results are shown.
        weights_sha256: hash of the loaded weights file, None while random.
        state_sha256: hash over the loaded tensors themselves, equal for every file layout.
        loaded: what the weights file filled; None while random.
        new_structures: structures learned by an adapter -> class row.
        adapter: the injected adapter, None for the plain model.
        built_with: the options it was built with; None where it was built without any.
    """

    card: Card
    net: nn.Module
    random_weights: bool = True
    weights_sha256: str | None = None
    state_sha256: str | None = None
    loaded: Loaded | None = None
    new_structures: dict[str, int]
    adapter: Any = None
    built_with: ModelOptions | None = None

    @property
    def training_window(self) -> tuple[int, int, int]:
        """(X, Y, Z) voxels of a training patch: the card's window, unless an adapter looks further."""
        return self.card.window

    def train(self, mode: bool = True) -> Self:
        """As usual, but frozen batch norm keeps its statistics: an adapter must not move the base."""
        super().train(mode)
        for module in self.modules():
            own = module.parameters(recurse=False)
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not any(p.requires_grad for p in own):
                module.eval()
        return self

    @abstractmethod
    def encode(self, image: torch.Tensor, affine: torch.Tensor | None = None) -> Features:
        """Encode windows.

        Args:
            image: (B, 1, X, Y, Z), preprocessed as the card says; edges are multiples of the divisor.
            affine: (B, 4, 4) voxel index -> patient millimetres; needed for prompts with positions.
        """

    @abstractmethod
    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (B, K, X, Y, Z), one channel per prompt; positions outside the window are ignored."""

    def dense(self, features: Features) -> torch.Tensor:
        """F (B, D, X, Y, Z).

        With `sigmoid` output its inner product with a class vector is that class's logit; with
        `softmax` output its channels are the logits of all classes, background first.
        """
        raise NotImplementedError(f"{self.card.name} has no linear last layer")

    def class_vectors(self, structures: Sequence[str]) -> torch.Tensor:
        """(K, D) class vectors for `dense`."""
        raise NotImplementedError(f"{self.card.name} has no linear last layer")

    def head_input(self, features: Features) -> torch.Tensor:
        """(B, C, X, Y, Z) what `competing_rows` weigh: the input of the last layer, where that is linear."""
        raise NotImplementedError(f"{self.card.name} has no linear last layer")

    def competing_rows(self) -> torch.Tensor | None:
        """(N, C + 1) weights and bias of all classes of a softmax on `head_input`, in the order of `dense`.

        None where the last layer is not linear, or classes do not compete: then `dense` is all there is.
        """
        return None

    def merge(
        self, automatic: torch.Tensor, clicked: torch.Tensor, prompt: Prompt, affine: torch.Tensor
    ) -> torch.Tensor:
        """What `auto_point` says of one window: the answer by class, corrected by clicks.

        Args:
            automatic: (X, Y, Z) logits asked by class.
            clicked: (X, Y, Z) logits asked by the prompt's points.
            prompt: structure and points.
            affine: (4, 4) voxel index of the window -> patient millimetres.
        """
        raise NotImplementedError(f"{self.card.name} takes no 'auto_point' prompts")

    def stem_input(self, image: torch.Tensor) -> torch.Tensor:
        """What the first convolution sees of windows (B, M, X, Y, Z), which `encode` may change."""
        return image

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A published state dict (unwrapped, common prefixes stripped) under the network's own names.

        Names that are the network's own already stay as they are; what does not fit is left for the strict
        check to refuse.
        """
        return state

    def session(self, volume: Volume, origin: Origin | str, *, overlap: float | None, precision: str) -> Any:
        """A `VolumeSession` of the model's own, where it has a volume loop that windows cannot express.

        Args:
            volume: the scan as it is, in its units.
            origin: where it comes from; a modality (ct, pet or mr) says enough for models without
                adapters per tracer or site.
            overlap: share by which windows overlap; None = as the authors do.
            precision: auto, fp32 or bf16.

        Returns:
            The session, or None: windows around `encode` and `decode` do (the rule).
        """
        del volume, origin, overlap, precision

    def fused_session(
        self, fused: Any, volumes: Mapping[Modality, Volume], *, origin: Origin | str, precision: str
    ) -> Any:
        """As `session`, for a fusion around this model and scans of one person.

        Args:
            fused: the `umdseg.fusion.Fused` around this model, told where the scans lie.
            volumes: modality -> scan as it is, in its units.
            origin: where they come from.
            precision: auto, fp32 or bf16.

        Returns:
            The session, or None: windows around the fusion's `encode` and `decode` do.
        """
        del fused, volumes, origin, precision

    def answered(
        self, features: Features, structures: Sequence[str], step: Callable[[Features], torch.Tensor]
    ) -> torch.Tensor:
        """Logits (B, K, X, Y, Z) of structures by a step of this network's own, such as a further click.

        A fused model takes the step for everything that it fuses.
        """
        del structures
        return step(features)

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Refuse prompts that the model does not take.

        Raises:
            UserError: see `umdseg.backbones.guards.check_prompts`.
        """
        check_prompts(self.card, prompts)

    def check_edges(self, image: torch.Tensor) -> tuple[int, int, int]:
        """The shape (X, Y, Z) of windows (B, C, X, Y, Z).

        Raises:
            UserError: an edge that is no multiple of the card's divisor.
        """
        shape = (int(image.shape[2]), int(image.shape[3]), int(image.shape[4]))
        check_edges(self.card, shape)
        return shape

    @contextmanager
    def routed(self, origin: Origin | str | None) -> Iterator[None]:
        """Inside the block the model is the one for scans of `origin`, or of a modality.

        See `Adapter.routed`.
        """
        if self.adapter is None:
            yield
        else:
            with self.adapter.routed(self, origin):
                yield

    def class_logits(self, dense: torch.Tensor, structures: Sequence[str]) -> torch.Tensor:
        """Of classes that compete, the logit of each structure's softmax probability.

        Args:
            dense: (B, D, X, Y, Z) logits of all classes.
            structures: names; a group counts as the sum of its members.

        Returns:
            (B, K, X, Y, Z), positive where the structure's probability is above 1/2:
            log(p / (1 - p)) = logsumexp(own channels) - logsumexp(all others).
        """
        planes = []
        for name in structures:
            own = [self.index(member) for member in self.card.members(name)]
            rest = [channel for channel in range(dense.shape[1]) if channel not in own]
            planes.append(torch.logsumexp(dense[:, own], 1) - torch.logsumexp(dense[:, rest], 1))
        return torch.stack(planes, dim=1)

    @property
    def takes(self) -> tuple[Modality, ...]:
        """Modalities taken together, in the order of the input channels; empty: one scan at a time."""
        return ()

    @property
    def has_dense(self) -> bool:
        """Whether whole-body inference may stitch `dense` instead of K logits."""
        return type(self).dense is not Backbone.dense

    def knows(self, structure: str) -> bool:
        """Whether the structure can be asked for by class: from the card, or learned by an adapter."""
        return self.card.knows(structure) or structure in self.new_structures

    def index(self, structure: str) -> int:
        """The class index of one structure, learned ones included.

        Raises:
            UserError: neither the card nor an adapter has it (with the nearest name).
        """
        if structure in self.new_structures:
            return self.new_structures[structure]
        return self.card.index(structure)

    def add_structures(self, structures: Sequence[str]) -> dict[str, int]:
        """Give new structures their own class rows and return name -> index; old rows stay untouched.

        Raises:
            UserError: the model cannot learn new structures, or has no free rows left.
        """
        raise NotImplementedError(f"{self.card.name} cannot learn new structures")

    def forget_structures(self) -> None:
        """Undo `add_structures`: the class rows hold again what the weights file put there."""
        self.new_structures = {}
