"""DoRA (Liu et al., arXiv 2402.09353): LoRA for the direction of kernels, magnitudes apart, through peft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import nn

from umdseg.adapters.base import AdapterOptions
from umdseg.adapters.layers import Layer
from umdseg.adapters.lora import lora_config
from umdseg.adapters.peft import PeftAdapter, PeftOptions
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError


@dataclass
class DoraOptions(PeftOptions):
    """Options of DoRA.

    Attributes:
        rank: r, inner dimension of the update; of grouped convolutions a multiple of the groups.
        alpha: the update is scaled by alpha / rank.
    """

    name: str = "dora"
    rank: int = 8
    alpha: int = 16


class Dora(PeftAdapter):
    """m (W + alpha / r B A) / ||W + alpha / r B A||, the norm taken per output, m starting at ||W||.

    Trained are LoRA's numbers and one magnitude per output. The norm counts as a constant in the backward
    pass (section 4.3 of the paper).
    """

    method = "dora"
    # LoRA's: the magnitudes see the gradient of a rescaled kernel, which is of the same size
    default_lr = 2e-3
    Options: ClassVar[type[AdapterOptions]] = DoraOptions
    # peft's DoRA knows 1-D convolutions too, but not with groups
    kinds: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear, nn.Conv3d)

    def config(self, backbone: Backbone, rows: list[int], targets: list[Layer], pattern: str) -> Any:
        """A `peft.LoraConfig` with `use_dora`."""
        options = cast(DoraOptions, self.options)
        for layer in targets:
            weight: Any = layer.module.weight
            if not bool(torch.linalg.vector_norm(weight.detach().flatten(1), dim=1).all()):
                raise UserError(
                    f"an output of {layer.name} has no direction: its weights are all 0",
                    where="adapter",
                    expected="adapter=lora, or adapter.targets without that layer",
                )
        return lora_config(backbone, rows, targets, pattern, options.rank, options.alpha, use_dora=True)
