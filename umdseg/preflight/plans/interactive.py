"""The plan of nnInteractive: the network once per interaction, and again where it zooms out and refines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from umdseg.backbones.base import Backbone
from umdseg.backbones.nninteractive.backbone import Nninteractive
from umdseg.config.schema import Settings
from umdseg.data.geometry import Grid
from umdseg.preflight.cost import counted
from umdseg.preflight.plans.base import Plan, Step
from umdseg.vocabulary import PromptKind

# image in float32, 7 channels of interactions in float16 (see NninteractiveSession)
_VOXEL_BYTES = 18
# above so many voxels the package keeps the channels compressed
_COMPRESSED = 1 << 27


class InteractivePlan(Plan):
    """How often the package zooms out, and how many tiles it refines, shows only in the scan."""

    bound: ClassVar[str] = "at least"
    backbone: Nninteractive

    def __init__(self, settings: Settings, backbone: Backbone, names: Sequence[str]) -> None:
        super().__init__(settings, backbone, names)
        net: Any = self.backbone.net
        image = torch.empty(1, 1 + self.backbone.count, *self.card.window, device="meta")
        with torch.no_grad():
            self.steps = [Step("window", "windows", counted(lambda: net(image)))]

    def passes(self, grid: Grid, kinds: Sequence[PromptKind], names: Sequence[str]) -> Mapping[str, int]:
        """One interaction per structure and prompt."""
        return {"window": len(names) * len(kinds)}

    def held(self, grid: Grid) -> int:
        """The package's own volumes, its answer, and one mask resampled."""
        own = math.prod(grid.shape)
        volumes = own * (4 if own > _COMPRESSED else _VOXEL_BYTES)
        return volumes + own * (1 + 1 + 4)
