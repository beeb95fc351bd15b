"""fusion=early: further modalities enter at the first convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from umdseg.backbones.base import Backbone, Features
from umdseg.backbones.card import Card
from umdseg.errors import UserError
from umdseg.fusion.base import Fused
from umdseg.fusion.options import FusionOptions
from umdseg.vocabulary import Modality


@dataclass
class EarlyOptions(FusionOptions):
    """Early fusion has no options of its own."""

    name: str = "early"


class Stem(nn.Module):
    """What the first convolution gains: one convolution per modality, and a value where one is missing.

    out = W x_lead + sum over present m other than the lead of V_m x_m
          + sum over absent m of a_m, all V and a being 0 at first.
    This is the input inflation of I3D (Carreira & Zisserman, arXiv 1705.07750, section 2) with zeros for
    the added channels, so that the inflated network starts as the pretrained one.

    Args:
        base: the pretrained convolution W; it stays where it is.
        modalities: all M of them.
        reference: the modality that never comes in beside another one: where it is there it leads.
    """

    def __init__(self, base: Any, modalities: Sequence[str], reference: str) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        arguments = {
            "kernel_size": base.kernel_size,
            "stride": base.stride,
            "padding": base.padding,
            "dilation": base.dilation,
            "padding_mode": base.padding_mode,
            "bias": False,
        }
        self.added = nn.ModuleDict()
        for modality in self.modalities:
            if modality != reference:
                own = nn.Conv3d(1, base.out_channels, **arguments)
                nn.init.zeros_(own.weight)
                self.added[modality] = own
        self.absent = nn.Parameter(torch.zeros(len(self.modalities), base.out_channels))

    def forward(self, image: torch.Tensor, enters: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """What is added to the base's output.

        Args:
            image: (B, M, X, Y, Z).
            enters: (B, M) bool: which enter through their own convolution.
            present: (B, M) bool.

        Returns:
            (B, C, X', Y', Z').
        """
        missing = (~present).to(self.absent.dtype) @ self.absent
        total = missing.reshape(*missing.shape, 1, 1, 1)
        for column, modality in enumerate(self.modalities):
            rows = enters[:, column].nonzero()[:, 0]
            if len(rows):
                own = self.added[modality](image[rows, column : column + 1])
                grown = total.to(own.dtype).expand(-1, -1, *own.shape[2:])
                total = grown.index_add(0, rows, own)
        return total


class EarlyFusion(Fused):
    """One pass of the network for all modalities; the leading one enters through the pretrained stem.

    The added part is a hook on that convolution: the network's modules and their names stay as they are,
    so adapters and saved states never meet it.
    """

    kind = "early"
    Options: ClassVar[type[FusionOptions]] = EarlyOptions
    one_pass = True

    def __init__(
        self,
        inner: Backbone,
        options: FusionOptions,
        modalities: Sequence[Modality],
        order: Sequence[Modality],
    ) -> None:
        super().__init__(inner, options, modalities, order)
        base: Any = stem_of(inner)
        self.parts = Stem(base, self.modalities, self.modalities[self.order[0]]).to(base.weight.device)
        # what enters beside the leading modality while a window is encoded, seen by the hook
        self._beside: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._hook = base.register_forward_hook(self._add)

    @classmethod
    def unsuited(cls, card: Card) -> str:
        """Beside the general reasons: a first layer that sees pictures, or none that the card names."""
        if card.slicewise:
            return "its first layer sees pictures of slices, not windows"
        return super().unsuited(card) or ("" if card.stem else "its card names no single first convolution")

    @classmethod
    def refusal(cls, inner: Backbone) -> str:
        """Beside the card's reasons: a first layer of another kind."""
        why = super().refusal(inner)
        base = None if why else stem_of(inner)
        if not why and (not isinstance(base, nn.Conv3d) or base.in_channels != 1):
            why = f"its first layer '{inner.card.stem}' is no 3-D convolution of one channel"
        return why

    def fuse(
        self, image: torch.Tensor, affine: torch.Tensor | None, present: torch.Tensor, lead: torch.Tensor
    ) -> Features:
        """One pass; see `Stem`."""
        if self.inner.adapter is not None and self.inner.adapter.routes:
            raise UserError(
                "early fusion sends all modalities through the network in one pass",
                where="adapter.per",
                expected="null: one adapter for all, or fusion=gated or late",
            )
        columns = torch.arange(len(self.modalities), device=image.device)
        enters = present & (columns != lead[:, None])
        first = image[torch.arange(len(image), device=image.device), lead][:, None]
        self._beside.append((self.inner.stem_input(image), enters, present))
        try:
            return self.inner.encode(first, affine)
        finally:
            self._beside.pop()

    def release(self) -> Backbone:
        """Take the fusion off and return the plain backbone."""
        self._hook.remove()
        return self.inner

    def _add(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        del module, inputs
        if not self._beside:
            return output
        more: torch.Tensor = self.parts(*self._beside[-1])
        return output + more.to(output.dtype)


def stem_of(backbone: Backbone) -> nn.Module | None:
    """The pretrained first convolution, inside whatever an adapter has put around it; None without one."""
    try:
        # peft's wrapper passes names through
        module: Any = backbone.net.get_submodule(backbone.card.stem)
    except AttributeError:
        return None
    inside = getattr(module, "get_base_layer", None)
    base: nn.Module = module if inside is None else inside()
    return base
