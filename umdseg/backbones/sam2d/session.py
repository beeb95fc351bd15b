"""The volume session of networks for single images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch

from umdseg.backbones.base import BACKGROUND
from umdseg.backbones.prompted import PromptedSession
from umdseg.backbones.sam2d.kept import Kept
from umdseg.backbones.sam2d.options import PLANES
from umdseg.backbones.sam2d.prompts import Placed
from umdseg.backbones.sam2d.stack import Stack, whole
from umdseg.data.geometry import Grid, Volume, resample_slabs
from umdseg.data.preprocess import Preprocessing, prepare_image
from umdseg.progress import track
from umdseg.vocabulary import Origin, Prompt

if TYPE_CHECKING:
    from umdseg.backbones.sam2d.backbone import Sam2d

# slice -> low-resolution logits
Found = dict[int, torch.Tensor]
# (1, X, Y, dz) logits and their place
Laid = tuple[torch.Tensor, Grid]


class SliceSession(PromptedSession[list[Found]]):
    """One scan, slice by slice in its own voxels; of several planes the mean of their logits counts.

    Args:
        backbone: in eval mode.
        volume: the scan as it is, in its units.
        origin: chooses intensities, and among adapters.
        precision: auto, fp32, bf16.
    """

    def __init__(self, backbone: Sam2d, volume: Volume, origin: Origin | str, precision: str) -> None:
        super().__init__(backbone, volume.grid, origin, precision)
        self._backbone = backbone
        kept = Kept(backbone.options.cached_mb << 20)
        self._stacks = [self._stack(volume, plane, kept) for plane in backbone.options.planes]

    def _stack(self, volume: Volume, plane: str, kept: Kept) -> Stack:
        prepared = prepare_image(volume, str(self._origin.modality), numbers(self._backbone, plane))
        return Stack(self._backbone, whole(prepared.image[0]), prepared.grid, kept)

    def _answer(self, prompt: Prompt) -> list[Found]:
        return [
            answered(self._backbone, stack, placed_on(self._backbone, stack, prompt), prompt.structure)
            for stack in self._stacks
        ]

    def _sampler(self, answer: list[Found]) -> Callable[[Grid], torch.Tensor]:
        planes = [laid_out(stack, found) for stack, found in zip(self._stacks, answer, strict=True)]
        return lambda part: mean(sampled(plane, part) for plane in planes)


def numbers(backbone: Sam2d, plane: str) -> Preprocessing:
    """What a scan goes through before it is cut into slices of a plane."""
    card = backbone.card
    return Preprocessing(card.spacing, card.intensity, card.crop, (1, 1, 1), PLANES[plane])


def placed_on(backbone: Sam2d, stack: Stack, prompt: Prompt) -> Placed:
    """A prompt on a stack."""
    return backbone.placed(prompt, torch.from_numpy(stack.grid.affine), stack.grid.shape)


def answered(backbone: Sam2d, stack: Stack, placed: Placed, structure: str) -> Found:
    """Low-resolution logits of every slice that a prompt leads to, on the CPU."""
    found: Found = {}
    # slices between two keys are reached from both
    most = (placed.reach[1] - placed.reach[0] + 1) * min(len(placed.keys), 2)
    answers = backbone.answers(stack, placed)
    for number, low in track(answers, f"slices of {structure}", "slice", total=most):
        logits = low.float().cpu()
        found[number] = torch.maximum(found[number], logits) if number in found else logits
    return found


def laid_out(stack: Stack, found: Found) -> Laid | None:
    """Logits (1, X, Y, dz) of the slices that were asked, and their place; None where there are none."""
    if not found:
        return None
    columns, rows, _ = stack.grid.shape
    start, stop = min(found), max(found) + 1
    logits = torch.full((1, columns, rows, stop - start), BACKGROUND)
    for number, low in found.items():
        logits[0, ..., number - start] = stack.layout.enlarge(low[None])[0].T
    return logits, stack.grid.crop((0, 0, start), (columns, rows, stop))


def sampled(laid: Laid | None, part: Grid) -> torch.Tensor:
    """(X, Y, dz) logits on a part of space; background where nothing was asked."""
    if laid is None:
        return torch.full(part.shape, BACKGROUND)
    pieces = resample_slabs(laid[0], laid[1], part, outside=BACKGROUND, slab=part.shape[2])
    return next(piece for _, piece in pieces)[0]


def mean(planes: Iterable[torch.Tensor]) -> torch.Tensor:
    """Mean of the planes' logits (X, Y, dz)."""
    each = list(planes)
    return sum(each[1:], start=each[0]) / len(each)
