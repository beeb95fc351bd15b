"""The plan of VoxTell: windows over the scan's own voxels, all texts in each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from umdseg.backbones.base import Backbone
from umdseg.backbones.voxtell.backbone import Voxtell
from umdseg.backbones.voxtell.session import PASS_NUMBERS
from umdseg.config.schema import Settings
from umdseg.data.geometry import Grid
from umdseg.inference.stitch import window_slices
from umdseg.preflight.cost import counted
from umdseg.preflight.plans.base import Plan, Step, prepared_shape
from umdseg.vocabulary import Prompt, PromptKind


class VoxtellPlan(Plan):
    """Every text is asked in one pass over the scan, as far as memory allows."""

    backbone: Voxtell

    def __init__(self, settings: Settings, backbone: Backbone, names: Sequence[str]) -> None:
        super().__init__(settings, backbone, names)
        texts = {text for name in names for text in self.backbone.texts(Prompt(name))}
        self._texts = max(len(texts), 1)
        net: Any = self.backbone.net
        image = torch.empty(1, 1, *self.card.window, device="meta")
        depth = self.backbone.bank.embeddings(list(self.backbone.bank.names.values())[:1]).shape[1]
        vectors = torch.empty(1, self._texts, depth, device="meta")
        with torch.no_grad():
            self.steps = [Step("window", "windows", counted(lambda: net(image, vectors)))]

    def passes(self, grid: Grid, kinds: Sequence[PromptKind], names: Sequence[str]) -> Mapping[str, int]:
        """A pass over the scan for as many texts as it holds; more take another."""
        shape = prepared_shape(self.card, grid)
        rounds = math.ceil(self._texts / max(PASS_NUMBERS // math.prod(shape), 1))
        return {"window": rounds * len(window_slices(shape, self.card.window, self.overlap)) * len(kinds)}

    def held(self, grid: Grid) -> int:
        """The prepared image and the logits of all texts in float16, those of one pass twice."""
        voxels = math.prod(prepared_shape(self.card, grid))
        at_once = min(self._texts, max(PASS_NUMBERS // voxels, 1))
        return voxels * (4 + 2 * (self._texts + at_once + 1)) + math.prod(grid.shape) * 8
