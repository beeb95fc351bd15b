"""Slices of several scans of one person, for fusions around networks for single images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from umdseg.backbones.base import Features
from umdseg.backbones.prompted import PromptedSession
from umdseg.backbones.sam2d.kept import Kept
from umdseg.backbones.sam2d.prompts import Placed
from umdseg.backbones.sam2d.session import (
    Found,
    Laid,
    answered,
    laid_out,
    mean,
    numbers,
    placed_on,
    sampled,
)
from umdseg.backbones.sam2d.stack import Stack, whole
from umdseg.data.geometry import Grid, Volume
from umdseg.data.preprocess import prepare_together
from umdseg.vocabulary import Modality, Origin, Prompt

if TYPE_CHECKING:
    from umdseg.backbones.sam2d.backbone import Sam2d


@dataclass(frozen=True)
class Voice:
    """What answers by itself.

    Attributes:
        stack: on the leading scan's lattice.
        reach: first and last slice that the scan reaches; the last before the first where it reaches none.
    """

    stack: Stack
    reach: tuple[int, int]

    def asked(self, placed: Placed) -> Placed:
        """A prompt on the slices that the scan reaches."""
        first, last = self.reach
        keys = tuple(key for key in placed.keys if first <= key <= last)
        return replace(placed, keys=keys, reach=(max(placed.reach[0], first), min(placed.reach[1], last)))


@dataclass(frozen=True)
class Heard:
    """What all voices of every plane said of a structure; those that were not asked said nothing."""

    structure: str
    planes: list[dict[Modality, Found]]


class FusedStack(Stack):
    """A stack whose embeddings are fused, slice by slice.

    Args:
        backbone: inside the fusion.
        fused: fuses features.
        voices: modality -> its own slices, all on one lattice; not empty.
        kept: where embeddings are kept.
    """

    def __init__(self, backbone: Sam2d, fused: Any, voices: Mapping[Modality, Voice], kept: Kept) -> None:
        first = voices[fused.leading].stack
        super().__init__(backbone, first.image, first.grid, kept)
        self._fused, self._voices = fused, voices

    def embedding(self, number: int) -> list[torch.Tensor]:
        """Fused embeddings of one slice, each map (1, C, h, w); a scan that does not reach it is missing."""
        return self._kept.get((id(self), number), lambda: self._made(number))

    def _made(self, number: int) -> list[torch.Tensor]:
        found = {}
        affine = torch.from_numpy(self.grid.slab(number, number + 1).affine)[None]
        shape = (*self.grid.shape[:2], 1)
        for modality, voice in self._voices.items():
            if voice.reach[0] <= number <= voice.reach[1]:
                with self._fused.of_modality(modality):
                    maps = voice.stack.embedding(number)
                # (1, C, h, w) -> (1, C, w, h, 1), as `encode` has them
                found[modality] = Features([m.transpose(2, 3)[..., None] for m in maps], affine, shape)
        fused = self._fused.joined_one(found)
        return [m[..., 0].transpose(2, 3).contiguous() for m in fused.maps]


class FusedSliceSession(PromptedSession[Heard]):
    """Slices of the leading scan, as the plain model's session has them, and of the others on its lattice.

    Where features are fused, embeddings are, slice by slice, and what follows is the plain session's. Where
    answers are mixed, each scan is asked by itself on the slices that it reaches, and mixed in there; a scan
    that reaches none of the slices that a prompt lies on is missing for that prompt.

    Args:
        backbone: inside the fusion, in eval mode.
        fused: the `umdseg.fusion.Fused`, told where the scans lie.
        volumes: modality -> scan as it is, in its units.
        origin: of the scans.
        precision: auto, fp32, bf16.
    """

    def __init__(
        self,
        backbone: Sam2d,
        fused: Any,
        volumes: Mapping[Modality, Volume],
        origin: Origin | str,
        precision: str,
    ) -> None:
        super().__init__(fused, volumes[fused.leading].grid, origin, precision)
        self._backbone, self._fused = backbone, fused
        kept = Kept(backbone.options.cached_mb << 20)
        self._planes = [self._voices(volumes, plane, kept) for plane in backbone.options.planes]

    def _voices(self, volumes: Mapping[Modality, Volume], plane: str, kept: Kept) -> dict[Modality, Voice]:
        """Of one plane, the leading scan's first; of fused features, one that speaks for all."""
        fused, lead = self._fused, self._fused.leading
        prepared = prepare_together(volumes, lead, numbers(self._backbone, plane))
        voices = {}
        for modality, image in zip(volumes, prepared.image, strict=True):
            stack = Stack(self._backbone, whole(image), prepared.grid, kept)
            voices[modality] = Voice(stack, _reach(fused, modality, prepared.grid))
        first = voices[lead]
        if fused.mixes:
            return {lead: first, **voices}
        return {lead: Voice(FusedStack(self._backbone, fused, voices, kept), first.reach)}

    def _answer(self, prompt: Prompt) -> Heard:
        planes: list[dict[Modality, Found]] = []
        for voices in self._planes:
            found: dict[Modality, Found] = {}
            for modality, voice in voices.items():
                placed = voice.asked(placed_on(self._backbone, voice.stack, prompt))
                if placed.keys or modality == self._fused.leading:
                    with self._fused.of_modality(modality):
                        found[modality] = answered(self._backbone, voice.stack, placed, prompt.structure)
            planes.append(found)
        return Heard(prompt.structure, planes)

    def _sampler(self, answer: Heard) -> Callable[[Grid], torch.Tensor]:
        shares = self._fused.shares(answer.structure) if self._fused.mixes else {}
        planes = [
            {modality: laid_out(voices[modality].stack, one) for modality, one in found.items()}
            for voices, found in zip(self._planes, answer.planes, strict=True)
        ]
        return lambda part: mean(
            self._mixed(voices, laid, shares, part) for voices, laid in zip(self._planes, planes, strict=True)
        )

    def _mixed(
        self,
        voices: Mapping[Modality, Voice],
        laid: Mapping[Modality, Laid | None],
        shares: Mapping[Modality, float],
        part: Grid,
    ) -> torch.Tensor:
        """(X, Y, dz) lead + sum of share (other - lead) where the other scan reaches."""
        lead = sampled(laid[self._fused.leading], part)
        total = lead
        for modality, share in shares.items():
            if modality in laid:
                added = share * (sampled(laid[modality], part) - lead)
                total = total + torch.where(_on_slices(voices[modality], part), added, torch.zeros_like(lead))
        return total


def _reach(fused: Any, modality: Modality, grid: Grid) -> tuple[int, int]:
    """First and last slice of a stack that a scan reaches; (0, -1) where it reaches none."""
    count = grid.shape[2]
    numbers = [z for z in range(count) if fused.reaches(modality, grid.slab(z, z + 1))]
    return (numbers[0], numbers[-1]) if numbers else (0, -1)


def _on_slices(voice: Voice, part: Grid) -> torch.Tensor:
    """(X, Y, dz) bool: voxels of a part of space that lie on slices which a scan reaches."""
    row = (np.linalg.inv(voice.stack.grid.affine) @ part.affine)[2]
    axes = [row[axis] * np.arange(count) for axis, count in enumerate(part.shape)]
    number = axes[0][:, None, None] + axes[1][:, None] + axes[2] + row[3]
    # float noise must not take a slice off the border
    first, last = voice.reach[0] - 0.501, voice.reach[1] + 0.501
    return torch.from_numpy((number >= first) & (number <= last))
