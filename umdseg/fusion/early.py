"""fusion=early: further modalities enter at the first convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from umdseg.backbones.base import Backbone, Features
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

    out = W x_lead + sum over present m other than the reference and the lead of V_m x_m
          + sum over absent m of a_m, all V and a being 0 at first.
    This is the input inflation of I3D (Carreira & Zisserman, arXiv 1705.07750, section 2) with zeros for
    the added channels, so that the inflated network starts as the pretrained one.

    Args:
        base: the pretrained convolution W; it stays where it is.
        count: modalities M.
    """

    def __init__(self, base: Any, count: int) -> None:
        super().__init__()
        kind = type(base)
        arguments = {
            "kernel_size": base.kernel_size,
            "stride": base.stride,
            "padding": base.padding,
            "dilation": base.dilation,
            "padding_mode": base.padding_mode,
            "bias": False,
        }
        added = [kind(1, base.out_channels, **arguments) for _ in range(count)]
        for module in added:
            nn.init.zeros_(module.weight)
        self.added = nn.ModuleList(added)
        self.absent = nn.Parameter(torch.zeros(count, base.out_channels))

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
        for column, convolution in enumerate(self.added):
            rows = enters[:, column].nonzero()[:, 0]
            if len(rows):
                own = convolution(image[rows, column : column + 1])
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
        self, inner: Backbone, options: FusionOptions, modalities: Sequence[Modality], reference: str
    ) -> None:
        super().__init__(inner, options, modalities, reference)
        base: Any = inner.net.get_submodule(inner.card.stem)
        self.parts = Stem(base, len(self.modalities)).to(base.weight.device)
        # what enters beside the leading modality while a window is encoded, seen by the hook
        self._beside: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._hook = base.register_forward_hook(self._add)

    @classmethod
    def refusal(cls, inner: Backbone) -> str:
        """Beside the general reasons: no single first convolution, or one that does not see the window."""
        why = super().refusal(inner)
        if why:
            return why
        if inner.card.slicewise:
            return "its first layer sees pictures of slices, not windows"
        if not inner.card.stem:
            return "its card names no single first convolution"
        base: Any = dict(inner.net.named_modules()).get(inner.card.stem)
        if not isinstance(base, nn.Conv3d) or base.in_channels != 1:
            return f"its first layer '{inner.card.stem}' is no 3-D convolution of one channel"
        return ""

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
        enters = present & (columns != lead[:, None]) & (columns != self.order[0])
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
