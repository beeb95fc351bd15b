"""The plan of nnU-Net models: every network over the whole scan, mirrored, in all folds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from umdseg.backbones.base import Backbone
from umdseg.backbones.nnunet.backbone import Nnunet
from umdseg.backbones.nnunet.part import Part
from umdseg.backbones.nnunet.predict import axes_of, network_axes
from umdseg.config.schema import Settings
from umdseg.data.geometry import Grid, canonical_grid
from umdseg.preflight.cost import counted
from umdseg.preflight.plans.base import Plan, Step
from umdseg.vocabulary import PromptKind

Shape = tuple[int, int, int]
# trainers that never mirror say so by their name
_NEVER = "NoMirroring"


class NnunetPlan(Plan):
    """Windows that overlap by half on the network's own spacing, of the networks that are asked for.

    nnU-Net crops scans to what is not 0 first; that shows only in the scan, so whole scans count. Where the
    checkpoints were not read, their folds are counted by their files, and mirroring is taken to be along all
    axes, as nnU-Net trains by default.
    """

    backbone: Nnunet

    def __init__(self, settings: Settings, backbone: Backbone, names: Sequence[str]) -> None:
        super().__init__(settings, backbone, names)
        asked = {number for name in names for number in self.backbone.places(name)}
        self._asked = sorted(asked)
        self.steps = [self._step(number) for number in self._asked]

    def passes(self, grid: Grid, kinds: Sequence[PromptKind], names: Sequence[str]) -> Mapping[str, int]:
        """Prompts by class are answered from one run."""
        return {
            step.one: self._windows(part, grid) * self._repeats(part) * len(kinds)
            for step, part in zip(self.steps, self._parts(), strict=True)
        }

    def held(self, grid: Grid) -> int:
        """Per network logits in float16, one class resampled and compared, the winner; one prepared image."""
        own, total = math.prod(grid.shape), 0
        largest = 0
        for part in self._parts():
            voxels = math.prod(self._shape(part, grid))
            # float16 logits, once more while they are summed over windows
            total += voxels * part.heads * 2 + own * 2
            largest = max(largest, voxels * (part.heads * 2 + 4 * self.channels + 2))
        # class by class in float32: its plane, the best so far, and what comparing makes
        return total + largest + own * 12

    def _step(self, number: int) -> Step:
        part = self.backbone.parts[number]
        net: Any = self.backbone.networks[number]
        patch = [int(edge) for edge in part.configuration.patch_size]
        image = torch.empty(1, len(part.channels), *patch, device="meta")
        with torch.no_grad():
            cost = counted(lambda: net(image))
        which = f" of network {number + 1}" if len(self.backbone.parts) > 1 else ""
        return Step(f"window{which}", f"windows{which}", cost)

    def _parts(self) -> list[Part]:
        return [self.backbone.parts[number] for number in self._asked]

    def _shape(self, part: Part, grid: Grid) -> Shape:
        """Voxels at the network's spacing, at least one window."""
        codes = network_axes(part, self.backbone.forced or axes_of(grid))
        x, y, z = (float(edge) for edge in part.configuration.spacing)
        whole = canonical_grid(grid, (x, y, z), codes).shape
        a, b, c = (max(n, int(w)) for n, w in zip(whole, part.configuration.patch_size, strict=True))
        return a, b, c

    def _windows(self, part: Part, grid: Grid) -> int:
        from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

        places = compute_steps_for_sliding_window(
            self._shape(part, grid), tuple(part.configuration.patch_size), 1 - self.overlap
        )
        return math.prod(len(axis) for axis in places)

    def _repeats(self, part: Part) -> int:
        """Passes of one window: mirrored copies in every fold."""
        options: Any = self.settings.model
        if self.backbone.adapter is not None:
            # what was trained here was trained from one fold
            folds = 1
        elif part.states or options.weights is not None:
            folds = max(len(part.states), 1)
        else:
            folds = max(len(list(part.folder.glob(f"fold_*/{options.checkpoint}"))), 1)
            if options.folds is not None:
                folds = len(options.folds)
        known = part.states or options.weights == "random"
        axes = len(part.mirroring or ()) if known else 0 if _NEVER in part.folder.name else 3
        copies: int = 2 ** (axes if self.backbone.mirroring else 0)
        return folds * copies
