"""fusion=gated: every modality is encoded by itself; gates let the others into the leading one's features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from umdseg.backbones.base import Backbone, Features
from umdseg.errors import UserError
from umdseg.fusion.base import Fused
from umdseg.fusion.options import FusionOptions
from umdseg.fusion.parts import PartedFeatures, by_lead, channels_of, gather
from umdseg.fusion.presence import leads
from umdseg.vocabulary import Modality, Prompt


@dataclass
class GatedOptions(FusionOptions):
    """Options of gated fusion.

    Attributes:
        width: channels through which another modality's features pass; None = as many as there are.
    """

    name: str = "gated"
    width: int | None = None

    def validate(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: as `FusionOptions.validate`, or a width below 1.
        """
        super().validate()
        if self.width is not None and self.width < 1:
            raise UserError(
                f"a width of {self.width}", where="fusion.width", expected="1 or more, or null for all"
            )


class Gate(nn.Module):
    """What one modality adds to the leading one's features at one level.

    y = sigmoid(G [lead, other]) * P other, where P is 0 at first.
    Source: the gated fusion of Arevalo et al., Gated Multimodal Units, arXiv 1702.01992, equation 3, as a
    residual with one gate per voxel.

    Args:
        channels: of the feature map.
        width: inner channels of P; None = P is one 1x1x1 convolution.
    """

    def __init__(self, channels: int, width: int | None) -> None:
        super().__init__()
        self.gate = nn.Conv3d(2 * channels, 1, 1)
        last = nn.Conv3d(channels if width is None else width, channels, 1, bias=False)
        nn.init.zeros_(last.weight)
        first = [] if width is None else [nn.Conv3d(channels, width, 1, bias=False)]
        self.project = nn.Sequential(*first, last)

    def forward(self, lead: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """(B, C, X, Y, Z) of both -> what is added to the first."""
        gate = self.gate(torch.cat([lead, other], dim=1)).sigmoid()
        out: torch.Tensor = gate * self.project(other)
        return out


class GatedFusion(Fused):
    """Features are fused level by level before the decoder; the encoder runs once per modality.

    maps = lead + sum over present m of gate_m(lead, m) + sum over absent m of a_m, where gates and a are 0
    at first. With an adapter per modality each is encoded by its own, and decoded by the leading one's.
    """

    kind = "gated"
    Options: ClassVar[type[FusionOptions]] = GatedOptions

    def __init__(
        self,
        inner: Backbone,
        options: FusionOptions,
        modalities: Sequence[Modality],
        order: Sequence[Modality],
    ) -> None:
        super().__init__(inner, options, modalities, order)
        width = getattr(options, "width", None)
        channels = channels_of(inner)
        device = next(inner.net.parameters()).device
        # the first in order leads where it is there, so it never comes in beside another one
        others = [self.modalities[i] for i in self.order[1:]]
        gates: dict[str, nn.Module] = {m: nn.ModuleList(Gate(c, width) for c in channels) for m in others}
        absent = [nn.Parameter(torch.zeros(len(self.modalities), c)) for c in channels]
        parts = {"gates": nn.ModuleDict(gates), "absent": nn.ParameterList(absent)}
        self.parts = nn.ModuleDict(parts).to(device)

    def fuse(
        self, image: torch.Tensor, affine: torch.Tensor | None, present: torch.Tensor, lead: torch.Tensor
    ) -> Features:
        """Encode each modality, then fuse every level."""
        return self.joined(self.each(image, affine, present), present, lead)

    def joined(
        self, found: Mapping[int, tuple[torch.Tensor, Features]], present: torch.Tensor, lead: torch.Tensor
    ) -> Features:
        """Fuse every level of what `each` gives."""
        start = gather(found, lead)
        maps = [self._level(level, own, found, present, lead) for level, own in enumerate(start.maps)]
        return PartedFeatures(maps, start.affine, start.shape, dict(start.state), lead=lead)

    def joined_one(self, found: Mapping[Modality, Features]) -> Features:
        """As `joined`, of a single sample (B is 1): modality -> its features, the leading one among them."""
        device = next(iter(found.values())).maps[0].device
        present = torch.tensor([[m in found for m in self.modalities]], device=device)
        row = torch.zeros(1, dtype=torch.long, device=device)
        columns = {self.modalities.index(m): (row, features) for m, features in found.items()}
        return self.joined(columns, present, leads(present, self.order))

    def _level(
        self,
        level: int,
        own: torch.Tensor,
        found: Mapping[int, tuple[torch.Tensor, Features]],
        present: torch.Tensor,
        lead: torch.Tensor,
    ) -> torch.Tensor:
        absent: torch.Tensor = self.parts["absent"][level]  # type: ignore[index]
        missing = ((~present).to(absent.dtype) @ absent).to(own.dtype)
        out = own + missing.reshape(*missing.shape, 1, 1, 1)
        for column, (rows, features) in found.items():
            other = lead[rows] != column
            if not bool(other.any()):
                continue
            places = rows[other]
            gate = self.parts["gates"][self.modalities[column]][level]  # type: ignore[index]
            added = gate(own[places], features.maps[level][other])
            out = out.index_add(0, places, added.to(out.dtype))
        return out

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (B, K, X, Y, Z), decoded with the leading modality's adapter where there is one for each."""
        return by_lead(self, features, lambda own: self.inner.decode(own, prompts))

    def answered(
        self, features: Features, structures: Sequence[str], step: Callable[[Features], torch.Tensor]
    ) -> torch.Tensor:
        """As `decode`."""
        del structures
        return by_lead(self, features, step)

    def dense(self, features: Features) -> torch.Tensor:
        """F (B, D, X, Y, Z), as `decode`."""
        return by_lead(self, features, self.inner.dense)

    def class_vectors(self, structures: Sequence[str]) -> torch.Tensor:
        """(K, D), with the adapter of the modality that leads where all that is given is there."""
        with self.of_modality(self.leading):
            return self.inner.class_vectors(structures)
