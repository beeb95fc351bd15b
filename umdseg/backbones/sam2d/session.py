"""The volume session of networks for single images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from umdseg.backbones.base import BACKGROUND
from umdseg.backbones.precision import autocast
from umdseg.backbones.sam2d.kept import Kept
from umdseg.backbones.sam2d.options import PLANES
from umdseg.backbones.sam2d.stack import Stack, whole
from umdseg.data.geometry import Grid, Volume, resample_slabs
from umdseg.data.preprocess import Preprocessing, prepare_image
from umdseg.progress import track
from umdseg.vocabulary import Origin, Prompt

if TYPE_CHECKING:
    from umdseg.backbones.sam2d.backbone import Sam2d

Found = dict[int, torch.Tensor]
# numbers per output slab
SLAB_NUMBERS = 1 << 26


class SliceSession:
    """One scan, slice by slice in its own voxels; of several planes the mean of their logits counts.

    Args:
        backbone: in eval mode.
        volume: the scan as it is, in its units.
        origin: chooses intensities, and among adapters.
        precision: auto, fp32, bf16.
    """

    def __init__(self, backbone: Sam2d, volume: Volume, origin: Origin | str, precision: str) -> None:
        self.native = volume.grid
        self._backbone, self._origin, self._precision = backbone, Origin.of(origin), precision
        self._device = next(backbone.parameters()).device
        autocast(precision, self._device)
        kept = Kept(backbone.options.cached_mb << 20)
        self._stacks = [self._stack(volume, plane, kept) for plane in backbone.options.planes]
        self._history: list[dict[str, Prompt]] = [{}]
        # low-resolution logits, per stack
        self._found: dict[Prompt, list[Found]] = {}

    def prompt(self, prompts: Sequence[Prompt]) -> None:
        """Ask; a prompt replaces the earlier one of the same structure (points are given whole).

        Raises:
            UserError: a prompt of a kind that the model does not take.
        """
        self._backbone.check_prompts(prompts)
        self._history.append({**self._history[-1], **{prompt.structure: prompt for prompt in prompts}})

    def undo(self) -> None:
        """Take the last call of `prompt` back."""
        if len(self._history) > 1:
            self._history.pop()

    @torch.no_grad()
    def scores(
        self, structures: Sequence[str], grid: Grid | None = None
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Logits resampled linearly to `grid` (None: the scan's own) as (z slice, (K, X, Y, dz) float32).

        Raises:
            UserError: a structure that nobody prompted for.
        """
        asked = [self._history[-1].get(name, Prompt(name)) for name in structures]
        self._backbone.check_prompts(asked)
        target = grid or self.native
        with self._backbone.routed(self._origin), autocast(self._precision, self._device):
            found = [self._answered(prompt) for prompt in asked]
        current = set(self._history[-1].values())
        self._found = {prompt: answers for prompt, answers in self._found.items() if prompt in current}
        step = max(SLAB_NUMBERS // (target.shape[0] * target.shape[1] * (len(asked) + 4)), 1)
        sources = [[self._volume(s, f) for s, f in zip(self._stacks, one, strict=True)] for one in found]
        for start in range(0, target.shape[2], step):
            stop = min(start + step, target.shape[2])
            part = target.slab(start, stop)
            yield slice(start, stop), torch.stack([_mean(planes, part) for planes in sources])

    def _stack(self, volume: Volume, plane: str, kept: Kept) -> Stack:
        card = self._backbone.card
        numbers = Preprocessing(card.spacing, card.intensity, card.crop, (1, 1, 1), PLANES[plane])
        prepared = prepare_image(volume, str(self._origin.modality), numbers)
        return Stack(self._backbone, whole(prepared.image[0]), prepared.grid, kept)

    def _answered(self, prompt: Prompt) -> list[Found]:
        if prompt not in self._found:
            self._found[prompt] = [self._on(stack, prompt) for stack in self._stacks]
        return self._found[prompt]

    def _on(self, stack: Stack, prompt: Prompt) -> Found:
        placed = self._backbone.placed(prompt, torch.from_numpy(stack.grid.affine), stack.grid.shape)
        found: Found = {}
        # slices between two keys are reached from both
        most = (placed.reach[1] - placed.reach[0] + 1) * min(len(placed.keys), 2)
        answers = self._backbone.answers(stack, placed)
        for number, low in track(answers, f"slices of {prompt.structure}", "slice", total=most):
            logits = low.float().cpu()
            found[number] = torch.maximum(found[number], logits) if number in found else logits
        return found

    def _volume(self, stack: Stack, found: Found) -> tuple[torch.Tensor, Grid] | None:
        """Logits (1, X, Y, dz) of the slices that were asked, and their place; None where there are none."""
        if not found:
            return None
        columns, rows, _ = stack.grid.shape
        start, stop = min(found), max(found) + 1
        logits = torch.full((1, columns, rows, stop - start), BACKGROUND)
        for number, low in found.items():
            logits[0, ..., number - start] = stack.layout.enlarge(low[None])[0].T
        return logits, stack.grid.crop((0, 0, start), (columns, rows, stop))


def _mean(planes: Sequence[tuple[torch.Tensor, Grid] | None], part: Grid) -> torch.Tensor:
    """(X, Y, dz) mean over planes; background where a plane was not asked."""
    total = torch.zeros(part.shape)
    for plane in planes:
        if plane is None:
            total += BACKGROUND
            continue
        pieces = resample_slabs(plane[0], plane[1], part, outside=BACKGROUND, slab=part.shape[2])
        total += next(piece for _, piece in pieces)[0]
    return total / len(planes)
