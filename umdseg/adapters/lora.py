"""LoRA (Hu et al., arXiv 2106.09685) on the layers the card names, through peft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import nn

from umdseg.adapters.base import AdapterOptions
from umdseg.adapters.layers import Layer
from umdseg.adapters.peft import PeftAdapter, PeftOptions, class_table
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError


@dataclass
class LoraOptions(PeftOptions):
    """Options of LoRA.

    Attributes:
        rank: r, inner dimension of the update; of grouped convolutions a multiple of the groups.
        alpha: the update is scaled by alpha / rank.
        dropout: on the adapter's input, in training.
    """

    name: str = "lora"
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0


class Lora(PeftAdapter):
    """Low-rank updates beside frozen layers: W + alpha / r B A.

    Trained are r (in + out) numbers of a linear layer, and r (in k / g + out / g) of a convolution with g
    groups and k voxels in its kernel; B starts at 0.
    """

    method = "lora"
    # B starts at 0 and the update is a product, so its first steps are small: ten times full tuning's rate
    default_lr = 2e-3
    Options: ClassVar[type[AdapterOptions]] = LoraOptions

    def config(self, backbone: Backbone, rows: list[int], targets: list[Layer], pattern: str) -> Any:
        """A `peft.LoraConfig`."""
        options = cast(LoraOptions, self.options)
        return lora_config(
            backbone, rows, targets, pattern, options.rank, options.alpha, lora_dropout=options.dropout
        )


def lora_config(
    backbone: Backbone,
    rows: list[int],
    targets: Sequence[Layer],
    pattern: str,
    rank: int,
    alpha: int,
    **more: Any,
) -> Any:
    """A `peft.LoraConfig` whose convolutions are those of `peft_conv`.

    Raises:
        UserError: a rank below 1, or one that does not divide among the groups of a convolution.
    """
    from peft import LoraConfig

    from umdseg.adapters.peft_conv import Conv1d, Conv2d, Conv3d

    if rank < 1:
        raise UserError(f"an update of rank {rank}", where="adapter.rank", expected="1 or more")
    for layer in targets:
        groups = getattr(layer.module, "groups", 1)
        if rank % groups:
            raise UserError(
                f"rank {rank} does not divide among the {groups} groups of {layer.name}",
                where="adapter.rank",
                expected=f"a multiple of {groups}, or adapter.targets without that layer",
            )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=pattern,
        trainable_token_indices=class_table(backbone, rows),
        bias="none",
        **more,
    )
    config._register_custom_module({nn.Conv1d: Conv1d, nn.Conv2d: Conv2d, nn.Conv3d: Conv3d})
    return config
