"""The plan of SAM-Med3D models: a window around a click, and its neighbours where the answer goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from umdseg.backbones.base import Backbone
from umdseg.backbones.sam3d import Sam3d
from umdseg.config.schema import Settings
from umdseg.data.geometry import Grid, canonical_grid
from umdseg.preflight.cost import Cost, counted
from umdseg.preflight.plans.base import Plan, Step
from umdseg.tasks.asking import PLACED_PER_SAMPLE
from umdseg.vocabulary import PromptKind


class ClickPlan(Plan):
    """Up to `model.windows` windows per structure; how many shows only in the scan."""

    backbone: Sam3d

    def __init__(self, settings: Settings, backbone: Backbone, names: Sequence[str]) -> None:
        super().__init__(settings, backbone, names)
        with torch.no_grad():
            self._embedding = self._embed(1)
            embed = counted(lambda: self._embed(1))
            ask = counted(lambda: self._asked(self._embedding))
        self.steps = [
            Step("window embedded", "windows embedded", embed),
            Step("window asked", "windows asked", ask),
        ]

    def passes(self, grid: Grid, kinds: Sequence[PromptKind], names: Sequence[str]) -> Mapping[str, int]:
        """Windows of different structures coincide by accident only."""
        steps = [
            max(n - w / 2, w / 2) / (w / 2) for n, w in zip(self._shape(grid), self.card.window, strict=True)
        ]
        # neighbours overlap by half; no more than cover the scan
        most = min(self.backbone.windows, math.prod(math.ceil(step) for step in steps))
        count = most * len(names) * len(kinds)
        return {"window embedded": count, "window asked": count}

    def held(self, grid: Grid) -> int:
        """The prepared image, embeddings and logits of the windows, one slab of output."""
        own, prepared = math.prod(grid.shape), math.prod(self._shape(grid))
        windows = self.backbone.windows
        each = self._embedding.numel() * 4
        return prepared * 4 + windows * (math.prod(self.card.window) * 4 + len(self.names) * each) + own * 8

    def training(self, batch: int) -> Cost:
        """A few structures clicked on in every sample."""

        def step() -> None:
            maps = self._embed(batch)
            asked = [self._asked(maps[:1]).sum() for _ in range(batch * PLACED_PER_SAMPLE)]
            (torch.stack(asked).sum() + maps.sum()).backward()  # type: ignore[no-untyped-call]

        return counted(step)

    def _shape(self, grid: Grid) -> tuple[int, int, int]:
        return canonical_grid(grid, self.card.spacing, self.card.orientation).shape

    def _embed(self, count: int) -> torch.Tensor:
        net: Any = self.backbone.net
        made: torch.Tensor = net.image_encoder(torch.empty(count, 1, *self.card.window, device="meta"))
        return made

    def _asked(self, embedding: torch.Tensor) -> torch.Tensor:
        """One click; what its encoder makes of it is two tokens (a click, and "no box")."""
        net: Any = self.backbone.net
        tokens = torch.empty(1, 2, embedding.shape[1], device="meta")
        low, _ = net.mask_decoder(
            image_embeddings=embedding,
            image_pe=torch.empty_like(embedding),
            sparse_prompt_embeddings=tokens,
            dense_prompt_embeddings=torch.empty_like(embedding),
            multimask_output=False,
        )
        return self.backbone.enlarge(low)
