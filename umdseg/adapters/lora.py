"""LoRA (Hu et al., arXiv 2106.09685) on the convolutions the card names, through peft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from umdseg.adapters.base import AdapterOptions
from umdseg.adapters.peft import PeftAdapter, PeftOptions, class_table
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError


@dataclass
class LoraOptions(PeftOptions):
    """Options of LoRA.

    Attributes:
        rank: r, inner dimension of the update.
        alpha: the update is scaled by alpha / rank.
        dropout: on the adapter's input, in training.
        targets: regular expression of module names; None = the card's.
    """

    name: str = "lora"
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: str | None = None


class Lora(PeftAdapter):
    """Low-rank updates beside frozen convolutions."""

    method = "lora"
    Options: ClassVar[type[AdapterOptions]] = LoraOptions

    def config(self, backbone: Backbone, rows: list[int]) -> Any:
        """A `peft.LoraConfig`."""
        from peft import LoraConfig

        options = cast(LoraOptions, self.options)
        if options.rank < 1:
            raise UserError(f"LoRA of rank {options.rank}", where="adapter.rank", expected="1 or more")
        return LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,
            lora_dropout=options.dropout,
            target_modules=options.targets or backbone.card.adapter_targets,
            trainable_token_indices=class_table(backbone, rows),
            bias="none",
        )
