"""The plan of networks for single images: every slice embedded once, asked once per structure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from umdseg.backbones.base import Backbone
from umdseg.backbones.sam2d.backbone import Sam2d
from umdseg.backbones.sam2d.options import PLANES
from umdseg.backbones.sam2d.sam2 import Sam2
from umdseg.config.schema import Settings
from umdseg.data.geometry import Grid, canonical_grid
from umdseg.preflight.cost import Cost, counted
from umdseg.preflight.plans.base import Plan, Step
from umdseg.tasks.asking import PLACED_PER_SAMPLE
from umdseg.vocabulary import PromptKind


class SlicePlan(Plan):
    """Embeddings are kept up to `model.cached_mb`; beyond it, every structure's slices are embedded anew.

    How far a structure is followed shows only in the scan, so all slices count: real runs ask fewer.
    """

    backbone: Sam2d

    def __init__(self, settings: Settings, backbone: Backbone, names: Sequence[str]) -> None:
        super().__init__(settings, backbone, names)
        with torch.no_grad():
            self._maps = self._embed(1)
            embed = counted(lambda: self._embed(1))
            ask = counted(self._asked)
        self.steps = [
            Step("slice embedded", "slices embedded", embed),
            Step("slice asked", "slices asked", ask),
        ]

    def passes(self, grid: Grid, kinds: Sequence[PromptKind], names: Sequence[str]) -> Mapping[str, int]:
        """Each structure by itself, in every plane."""
        slices = self._slices(grid)
        asked = slices * len(names) * len(kinds)
        # sessions of different prompt kinds share nothing
        anew = len(names) if self._limit < slices * self._embedding else 1
        return {"slice embedded": slices * anew * len(kinds), "slice asked": asked}

    def held(self, grid: Grid) -> int:
        """Pictures, kept embeddings, the answer of one structure enlarged, and resampled."""
        own, slices = math.prod(grid.shape), self._slices(grid)
        planes = len(self.backbone.options.planes)
        embeddings = max(min(self._limit, slices * self._embedding), self._embedding)
        # per plane a float32 copy while pictures are made, uint8 pictures, float32 logits; the sum of planes
        return embeddings + own * (4 + 5 * planes + 4) + slices * (self.backbone.edge // 4) ** 2 * 4

    def training(self, batch: int) -> Cost:
        """One slice per sample, a few structures clicked on in each."""

        def step() -> None:
            maps = self._embed(batch)
            total = torch.stack(
                [self._asked([m[:1] for m in maps]).sum() for _ in range(batch * PLACED_PER_SAMPLE)]
            )
            (total.sum() + sum(m.sum() for m in maps)).backward()  # type: ignore[no-untyped-call]

        return counted(step)

    @property
    def _limit(self) -> int:
        return self.backbone.options.cached_mb << 20

    @property
    def _embedding(self) -> int:
        return sum(m.numel() for m in self._maps) * 4

    def _slices(self, grid: Grid) -> int:
        planes = self.backbone.options.planes
        return sum(canonical_grid(grid, self.card.spacing, PLANES[plane]).shape[2] for plane in planes)

    def _embed(self, count: int) -> list[torch.Tensor]:
        edge = self.backbone.edge
        return self.backbone.embed(torch.empty(count, 3, edge, edge, device="meta"))

    def _asked(self, maps: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """One box; what its encoder makes of it is two tokens, and with SAM 2 a third of padding."""
        net: Any = self.backbone.net
        *finer, last = maps or self._maps
        follows = isinstance(self.backbone, Sam2)
        told = {
            "image_embeddings": last,
            "image_positional_embeddings": torch.empty_like(last),
            "sparse_prompt_embeddings": torch.empty(1, 1, 2 + follows, last.shape[1], device="meta"),
            "dense_prompt_embeddings": torch.empty_like(last),
            "multimask_output": False,
        }
        if follows:
            told["high_resolution_features"] = finer
        found: torch.Tensor = net.mask_decoder(**told)[0]
        if maps is None and follows:
            _remembered(net, last)
        return found


def _remembered(model: Any, last: torch.Tensor) -> None:
    """What SAM 2 does on a slice beside asking: attend to its memory, and add to it (transformers' names)."""
    _, channels, height, width = last.shape
    config = model.config
    flat = last.flatten(2).permute(2, 0, 1)
    memories = config.num_maskmem
    depth = config.memory_encoder_output_channels
    pointers = config.max_object_pointers_in_encoder * (channels // depth)
    memory = torch.empty(memories * height * width + pointers, 1, depth, device="meta")
    model.memory_attention(
        current_vision_features=flat,
        current_vision_position_embeddings=flat,
        memory=memory,
        memory_posision_embeddings=memory,
        num_object_pointer_tokens=pointers,
    )
    rows, columns = (4 * edge for edge in model.prompt_encoder.mask_input_size)
    model.memory_encoder(last, torch.empty(1, 1, rows, columns, device="meta"))
