"""The contract of a plan, and the plan of models that see one window at a time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from umdseg.backbones.base import Backbone
from umdseg.backbones.card import Card
from umdseg.backbones.slabs import SLAB_NUMBERS
from umdseg.config.schema import Settings
from umdseg.data.geometry import Grid, canonical_grid
from umdseg.inference.classes import DENSE_BYTES
from umdseg.inference.stitch import window_slices
from umdseg.preflight.cost import Cost, inference_cost, training_cost
from umdseg.vocabulary import PromptKind


@dataclass(frozen=True)
class Step:
    """One kind of pass of a network.

    Attributes:
        one: what one is called, such as `window`.
        many: what several are called.
        cost: of one.
    """

    one: str
    many: str
    cost: Cost


class Plan(ABC):
    """What one model does with a scan.

    Args:
        settings: the configuration.
        backbone: on the meta device.
        names: structures asked for.

    Attributes:
        bound: what the counted passes are: `at most` or `at least` those that will run.
        steps: the kinds of passes; `passes` counts them by `one`.
    """

    bound: ClassVar[str] = "at most"
    steps: Sequence[Step]

    def __init__(self, settings: Settings, backbone: Backbone, names: Sequence[str]) -> None:
        self.settings, self.backbone, self.card, self.names = settings, backbone, backbone.card, names

    @abstractmethod
    def passes(self, grid: Grid, kinds: Sequence[PromptKind], names: Sequence[str]) -> Mapping[str, int]:
        """How many passes of each kind one scan takes.

        Args:
            grid: of the scan.
            kinds: prompt kinds, each asked by itself.
            names: all structures of the data set; those the model does not know can be clicked on.
        """

    @abstractmethod
    def held(self, grid: Grid) -> int:
        """Bytes kept of one scan beside the network: its prepared image, and what was made of it."""

    def training(self, batch: int) -> Cost:
        """One fitting step."""
        return training_cost(self.backbone, list(self.names), batch)

    @property
    def overlap(self) -> float:
        """Share by which windows overlap."""
        asked = self.settings.evaluation.overlap
        return self.card.overlap if asked is None else asked

    @property
    def channels(self) -> int:
        """Scans that one prediction takes together."""
        return max(len(self.backbone.takes), 1)


class WindowPlan(Plan):
    """Windows over the whole scan for all classes at once, and one around every click."""

    def __init__(self, settings: Settings, backbone: Backbone, names: Sequence[str]) -> None:
        super().__init__(settings, backbone, names)
        self.steps = [Step("window", "windows", inference_cost(backbone, list(names)))]

    def passes(self, grid: Grid, kinds: Sequence[PromptKind], names: Sequence[str]) -> Mapping[str, int]:
        """By class every window once; a click opens one."""
        windows = len(window_slices(prepared_shape(self.card, grid), self.card.window, self.overlap))
        whole = sum(kind in ("auto", "auto_point") for kind in kinds)
        return {"window": whole * windows + len(names) * sum(kind != "auto" for kind in kinds)}

    def held(self, grid: Grid) -> int:
        """The prepared image, the stitched channels, one slab of output."""
        own, prepared = math.prod(grid.shape), math.prod(prepared_shape(self.card, grid))
        classes, channels = len(self.names), self._stitched()
        canvas = channels * prepared * 4
        if self.card.output != "softmax":
            canvas = min(canvas, max(DENSE_BYTES, (classes + 1) * prepared * 4))
        slab = min(SLAB_NUMBERS, own * (channels + classes + 4)) * 4
        return prepared * 4 * self.channels + canvas + slab

    def _stitched(self) -> int:
        """Channels stitched over the volume, the one that says where somebody looked included."""
        rows = self.backbone.competing_rows()
        if rows is not None:
            return min(rows.shape[0], rows.shape[1] - 1) + 1
        if self.backbone.has_dense and self.names and self.card.output == "sigmoid":
            return int(self.backbone.class_vectors(self.names[:1]).shape[1]) + 1
        if self.card.output == "softmax":
            return max(self.card.structures.values(), default=0) + 2
        return len(self.names) + 1


def prepared_shape(card: Card, grid: Grid) -> tuple[int, int, int]:
    """Voxels of a scan on the card's grid, before air is cropped off."""
    whole = canonical_grid(grid, card.spacing, card.orientation).shape
    x, y, z = (max(n, w) for n, w in zip(whole, card.window, strict=True))
    return x, y, z
