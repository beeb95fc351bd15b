"""Linear probe: only the last layers train, those that turn features into logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from umdseg.adapters.base import AdapterOptions
from umdseg.adapters.chosen import ChosenAdapter, ChosenOptions, within
from umdseg.backbones.base import Backbone


@dataclass
class HeadOptions(ChosenOptions):
    """Options of the linear probe.

    Attributes:
        targets: regular expression of module names; None = the last layers that the card names.
    """

    name: str = "head"


class HeadTuning(ChosenAdapter):
    """Projection of frozen features; how well it does shows what the features still hold."""

    method = "head"
    needs: ClassVar[tuple[str, ...]] = ("logits", "head")
    # one linear map of fixed features: convex or nearly so, no need to be careful
    default_lr = 5e-3
    Options: ClassVar[type[AdapterOptions]] = HeadOptions

    def chosen(self, backbone: Backbone) -> Sequence[str]:
        """All tensors of the last layers."""
        pattern = cast(HeadOptions, self.options).targets or backbone.card.head
        found = within(backbone.net, pattern)
        if not found:
            raise self.nothing(backbone, "last layer to train", "adapter.targets, or another method")
        return found
