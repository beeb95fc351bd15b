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
from umdseg.data.geometry import Grid, canonical_grid, reoriented
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
        # of a cascade both stages run, the earlier one first
        self._parts: list[Part] = []
        steps: list[Step] = []
        for number in sorted(asked):
            part = self.backbone.parts[number]
            which = f" of network {number + 1}" if len(self.backbone.parts) > 1 else ""
            if part.previous:
                before, net = part.previous
                # no module of the backbone's, so it has not moved with it
                steps.append(self._step(before, net.to("meta"), f" of the stage before{which}"))
                self._parts.append(before)
            steps.append(self._step(part, self.backbone.networks[number], which))
            self._parts.append(part)
        self.steps = steps

    def passes(self, grid: Grid, kinds: Sequence[PromptKind], names: Sequence[str]) -> Mapping[str, int]:
        """Prompts by class are answered from one run."""
        return {
            step.one: self._windows(part, grid) * self._repeats(part) * len(kinds)
            for step, part in zip(self.steps, self._parts, strict=True)
        }

    def held(self, grid: Grid) -> int:
        """Per network logits in float16, one class resampled and compared, the winner; one prepared image."""
        own, total = math.prod(grid.shape), 0
        largest = 0
        for part in self._parts:
            voxels = math.prod(self._shape(part, grid))
            # float16 logits, once more while they are summed over windows
            total += voxels * part.heads * 2 + own * 2
            largest = max(largest, voxels * (part.heads * 2 + 4 * part.inputs + 2))
        # class by class in float32: its plane, the best so far, and what comparing makes
        return total + largest + own * 12

    def _step(self, part: Part, net: Any, which: str) -> Step:
        patch = [int(edge) for edge in part.configuration.patch_size]
        image = torch.empty(1, part.inputs, *patch, device="meta")
        with torch.no_grad():
            cost = counted(lambda: net(image))
        return Step(f"window{which}", f"windows{which}", cost)

    def _shape(self, part: Part, grid: Grid) -> Shape:
        """Voxels at the network's spacing, at least one window."""
        codes = network_axes(part, self.backbone.forced or axes_of(grid))
        x, y, z = part.spacing
        if part.flat:
            # slices keep their distance
            x = reoriented(grid, codes).spacing[0]
        whole = canonical_grid(grid, (x, y, z), codes).shape
        a, b, c = (max(n, w) for n, w in zip(whole, part.window, strict=True))
        return a, b, c

    def _windows(self, part: Part, grid: Grid) -> int:
        from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

        shape, patch = self._shape(part, grid), tuple(part.configuration.patch_size)
        slices = shape[0] if part.flat else 1
        places = compute_steps_for_sliding_window(shape[-len(patch) :], patch, 1 - self.overlap)
        return slices * math.prod(len(axis) for axis in places)

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
        axes = len(part.mirroring or ()) if known else 0 if _NEVER in part.folder.name else 3 - part.flat
        copies: int = 2 ** (axes if self.backbone.mirroring else 0)
        return folds * copies
