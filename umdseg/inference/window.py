"""A volume session for networks that see one window at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from umdseg.backbones.asked import Asked
from umdseg.backbones.base import BACKGROUND, Backbone, Features
from umdseg.backbones.slabs import slabs
from umdseg.data.geometry import Grid
from umdseg.errors import UserError
from umdseg.inference.classes import ClassScores
from umdseg.inference.clicks import ClickWindows
from umdseg.inference.precision import autocast
from umdseg.inference.sampling import sample
from umdseg.inference.stitch import Place, Shape, importance, stitch
from umdseg.vocabulary import Origin, Prompt


class WindowSession:
    """Class prompts by sliding windows, clicks by a window around them.

    `auto_point` is the answer by class, corrected by the clicks inside their windows.

    Args:
        backbone: in eval mode.
        image: (1, X, Y, Z) preprocessed, at least one window large.
        grid: place of `image`.
        native: the scan's own grid.
        modality: of the scan, or its whole origin; chooses among adapters where there are several.
        window: voxels of one pass.
        overlap: share by which sliding windows overlap.
        precision: auto, fp32, bf16.
        skip_air: leave windows of nothing but air out.
    """

    def __init__(
        self,
        backbone: Backbone,
        image: torch.Tensor,
        grid: Grid,
        native: Grid,
        *,
        modality: Origin | str | None = None,
        window: Shape,
        overlap: float = 0.25,
        precision: str = "auto",
        skip_air: bool = True,
    ) -> None:
        self.native = native
        self._backbone, self._image, self._grid = backbone, image, grid
        self._window, self._overlap, self._skip_air = window, overlap, skip_air
        self._precision, self._origin = precision, Origin.of(modality)
        self._device = next(backbone.parameters(), image).device
        self._autocast()
        self._asked = Asked()
        self._windows = ClickWindows(backbone, grid, window, self._encode_at)
        self._classes = ClassScores(backbone, grid, self._stitch, self._encode, self._autocast)
        self._placed: dict[Prompt, list[tuple[Grid, torch.Tensor]]] = {}

    def prompt(self, prompts: Sequence[Prompt]) -> None:
        """Ask; a prompt replaces the earlier one of the same structure (points are given whole).

        Raises:
            UserError: a prompt that the model does not take; or free text, which has no place that a window
                could lie around.
        """
        self._backbone.check_prompts(prompts)
        for prompt in prompts:
            if prompt.kind == "text":
                raise UserError(
                    f"windows have no place for the text prompt of {prompt.structure}",
                    expected="auto, a click, a box or a contour; or a session of the model's own",
                )
        self._asked.add(prompts)

    def undo(self) -> None:
        """Take the last call of `prompt` back."""
        self._asked.undo()

    @torch.no_grad()
    def scores(
        self, structures: Sequence[str], grid: Grid | None = None
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Logits resampled linearly to `grid` (None: the scan's own) as (z slice, (K, X, Y, dz))."""
        target = grid or self.native
        asked = self._asked.of(structures)
        with self._backbone.routed(self._origin):
            by_class = tuple(dict.fromkeys(p.structure for p in asked if self._has_class(p)))
            classes = self._classes.sampler(by_class) if by_class else None
            for prompt in asked:
                if prompt.kind != "auto":
                    self._place(prompt)
        all_auto = all(prompt.kind == "auto" for prompt in asked)
        channels = len(asked) + (classes.channels if classes else 0) + 4
        for place, part in slabs(target, channels):
            sampled = None if classes is None else classes.on(part)
            if sampled is not None and all_auto and len(by_class) == len(asked):
                yield place, sampled
                continue
            found = {} if sampled is None else dict(zip(by_class, sampled, strict=True))
            planes = [
                found[prompt.structure] if prompt.kind == "auto" else self._sample_placed(prompt, part, found)
                for prompt in asked
            ]
            yield place, torch.stack(planes)

    def _has_class(self, prompt: Prompt) -> bool:
        """Whether the answer by class is (part of) what is asked for; structures without one have clicks."""
        return prompt.kind == "auto" or (
            prompt.kind == "auto_point" and self._backbone.knows(prompt.structure)
        )

    def _place(self, prompt: Prompt) -> None:
        if prompt not in self._placed:
            with self._autocast():
                found = self._windows.decode(prompt)
            if self._has_class(prompt):
                classes, merge = self._classes.sampler((prompt.structure,)), self._backbone.merge
                found = [
                    (grid, merge(classes.on(grid)[0], logits, prompt, torch.from_numpy(grid.affine)))
                    for grid, logits in found
                ]
            self._placed = {**self._asked.kept(self._placed), prompt: found}

    def _sample_placed(
        self, prompt: Prompt, part: Grid, by_class: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """(X, Y, dz); where the windows of far apart clicks overlap, their weighted mean.

        Beyond them the answer by class, where it is part of what is asked for, else background.
        """
        windows = self._placed[prompt]
        total = torch.zeros(2, *part.shape)
        for grid, logits in windows:
            weight = importance(self._window) if len(windows) > 1 else torch.ones(grid.shape)
            total += sample(torch.stack([logits * weight, weight]), grid, part, outside=0.0)
        mean = total[0] / total[1].clamp(min=1e-12)
        beyond = by_class.get(prompt.structure, torch.full_like(mean, BACKGROUND))
        return torch.where(total[1] > 0, mean, beyond)

    def _autocast(self) -> AbstractContextManager[Any]:
        return autocast(self._precision, self._device)

    def _stitch(self, predict: Callable[[torch.Tensor, Place], torch.Tensor]) -> torch.Tensor:
        card = self._backbone.card
        scale = next((i for m, i in card.intensity.items() if m == self._origin.modality), None)
        # a preprocessed tensor of unknown modality is on the scale that all of the card's modalities share
        scale = scale or next(iter(card.intensity.values()))
        air = scale.air if self._skip_air else None
        return stitch(self._image, predict, self._window, self._overlap, air, card.blending)

    def _encode_at(self, start: Shape) -> Features:
        ends = [a + n for a, n in zip(start, self._window, strict=True)]
        place = (slice(start[0], ends[0]), slice(start[1], ends[1]), slice(start[2], ends[2]))
        return self._encode(self._image[(slice(None), *place)][None], place)

    def _encode(self, part: torch.Tensor, place: Place) -> Features:
        start = (place[0].start, place[1].start, place[2].start)
        stop = (place[0].stop, place[1].stop, place[2].stop)
        affine = torch.from_numpy(self._grid.crop(start, stop).affine)[None]
        with self._autocast():
            return self._backbone.encode(part.to(self._device), affine)
