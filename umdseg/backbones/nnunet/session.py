"""The volume session of nnU-Net models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg.backbones.base import BACKGROUND
from umdseg.backbones.nnunet import native
from umdseg.backbones.nnunet.cascade import earlier
from umdseg.backbones.nnunet.part import Part
from umdseg.backbones.nnunet.predict import Predicted, axes_of, predict
from umdseg.backbones.precision import Precision
from umdseg.backbones.slabs import slabs
from umdseg.data.geometry import Grid, Volume, resample_slabs
from umdseg.errors import unknown
from umdseg.vocabulary import Origin, Prompt

if TYPE_CHECKING:
    from umdseg.backbones.nnunet.backbone import Nnunet

# where nnU-Net decides between equal logits, the sign still tells which class it took
TIE = 1e-6
_OUTSIDE = -1e4


@dataclass(frozen=True)
class _Seen:
    """One network's values on a part of the output.

    Attributes:
        values: (C, X, Y, dz) logits.
        looked: (X, Y, dz) where the network looked.
        best, second: (X, Y, dz) the highest and the next highest of the values.
        taken: class taken by voxel (softmax), or channel -> where its region is.
    """

    values: torch.Tensor
    looked: torch.Tensor
    best: torch.Tensor
    second: torch.Tensor
    taken: Any


class NnunetSession:
    """One scan under an nnU-Net model: every network needed runs once, as `nnUNetPredictor` runs it.

    On the scan's own grid the sign of a structure's logit is nnU-Net's decision, voxel by voxel (its own
    resampling, class by class); on another grid classes are compared after linear resampling from the
    network's grid. In memory are the logits of the networks asked for, at their own spacing in float16, and
    one or two bytes per voxel of the scan.

    Args:
        backbone: the model.
        channels: volumes on one grid, in the order of the network's input channels.
        origin: chooses among adapters.
        overlap: share by which windows overlap; None = 1/2, as nnU-Net does.
        precision: auto (nnU-Net's own), fp32, bf16.

    Raises:
        UserError: unknown precision.
    """

    def __init__(
        self,
        backbone: Nnunet,
        channels: Sequence[Volume],
        origin: Origin | str,
        overlap: float | None,
        precision: str,
    ) -> None:
        if precision not in get_args(Precision):
            raise unknown("precision", precision, get_args(Precision))
        self.native = channels[0].grid
        self._backbone, self._channels, self._origin = backbone, channels, Origin.of(origin)
        self._step = 1 - (backbone.card.overlap if overlap is None else overlap)
        self._precision = precision
        self._found: dict[int, Predicted] = {}
        self._winners: dict[int, NDArray[Any]] = {}
        self._regions: dict[tuple[int, int], NDArray[np.bool_]] = {}

    def prompt(self, prompts: Sequence[Prompt]) -> None:
        """Class prompts change nothing; others are refused.

        Raises:
            UserError: the model takes no such prompt.
        """
        self._backbone.check_prompts(prompts)

    def undo(self) -> None:
        """Nothing to take back: what a class prompt asks for is known anyway."""

    @torch.no_grad()
    def scores(
        self, structures: Sequence[str], grid: Grid | None = None
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Logits on `grid` (None: the scan's own) as (z slice, (K, X, Y, dz) float32).

        A structure's logit is its class's lead over the best other class of its network; below
        -`TIE` where a later network of the release claims the voxel, if the release is merged so.
        """
        target = grid or self.native
        asked = [self._backbone.places(name) for name in structures]
        needed = sorted({number for group in asked for number in group})
        own = target.same_as(self.native, tolerance_mm=1e-4)
        for number in needed:
            self._run(number)
            if own:
                self._decide(number, sorted({c for group in asked for c in group.get(number, ())}))
        channels = sum(self._backbone.parts[number].heads for number in needed) + len(asked)
        for place, part in slabs(target, channels):
            seen = {number: self._look(number, part) for number in needed}
            if own:
                seen = {number: self._exact(number, one, place) for number, one in seen.items()}
            if self._backbone.overwrite:
                _give_way(seen)
            planes = [self._logit(group, seen) for group in asked]
            yield place, torch.stack(planes)

    def _run(self, number: int) -> None:
        if number in self._found:
            return
        backbone, part = self._backbone, self._backbone.parts[number]
        # what was trained here was trained from one fold, in the card's orientation
        changed = backbone.changed(number)
        base = backbone.base if changed else backbone.forced
        several = len(part.states) > 1 and not changed
        net = backbone.networks[number]
        how: Any = {"step": self._step, "mirroring": backbone.mirroring, "precision": self._precision}
        device = next(net.parameters()).device
        previous = earlier(part, self._channels, backbone.forced, device=device, **how)
        with backbone.routed(self._origin):
            self._found[number] = predict(
                part,
                net,
                part.states if several else [None],
                self._channels,
                base or axes_of(self.native),
                previous=previous,
                **how,
            )

    def _decide(self, number: int, channels: Sequence[int]) -> None:
        part, found = self._backbone.parts[number], self._found[number]
        if not part.regions:
            if number not in self._winners:
                self._winners[number] = native.winners(part, found, self.native)
            return
        for channel in channels:
            if (number, channel) not in self._regions:
                self._regions[number, channel] = native.inside(part, found, self.native, channel)

    def _look(self, number: int, part: Grid) -> _Seen:
        found = self._found[number]
        values, source = _near(found.logits, found.grid, part)
        parts = resample_slabs(values.float(), source, part, outside=_OUTSIDE, slab=part.shape[2])
        sampled = next(piece for _, piece in parts)
        looked = sampled[0] > _OUTSIDE / 2
        best, first = sampled.max(dim=0)
        if self._backbone.parts[number].regions:
            return _Seen(sampled, looked, best, best, dict(enumerate(sampled > 0)))
        second = sampled.scatter(0, first[None], -torch.inf).amax(dim=0)
        return _Seen(sampled, looked, best, second, first)

    def _exact(self, number: int, seen: _Seen, place: slice) -> _Seen:
        taken: Any
        if self._backbone.parts[number].regions:
            ours = {c: values for (n, c), values in self._regions.items() if n == number}
            taken = {c: torch.from_numpy(values[..., place]) for c, values in ours.items()}
        else:
            taken = torch.from_numpy(self._winners[number][..., place].astype(np.int64))
        return replace(seen, taken=taken)

    def _logit(self, group: dict[int, tuple[int, ...]], seen: dict[int, _Seen]) -> torch.Tensor:
        planes = []
        for number, channels in group.items():
            one, part = seen[number], self._backbone.parts[number]
            lead, won = _lead(one, channels, part)
            plane = torch.where(won, lead.clamp(min=TIE), lead.clamp(max=-TIE))
            planes.append(torch.where(one.looked, plane, torch.full_like(plane, BACKGROUND)))
        return torch.stack(planes).amax(dim=0)


def _lead(seen: _Seen, channels: Sequence[int], part: Part) -> tuple[torch.Tensor, torch.Tensor]:
    """How far the best of `channels` leads, and where it was taken."""
    own = seen.values[list(channels)].amax(dim=0)
    if part.regions:
        return own, torch.stack([seen.taken[c] for c in channels]).any(dim=0)
    won = torch.isin(seen.taken, torch.tensor(channels))
    if len(channels) == 1:
        return own - torch.where(own == seen.best, seen.second, seen.best), won
    rest = [channel for channel in range(len(seen.values)) if channel not in channels]
    return own - seen.values[rest].amax(dim=0), won


def _give_way(seen: dict[int, _Seen]) -> None:
    """What a later network takes, earlier ones lose."""
    order = sorted(seen)
    for at, number in enumerate(order):
        for later in order[at + 1 :]:
            seen[number].taken[seen[later].taken > 0] = 0


def _near(values: torch.Tensor, source: Grid, part: Grid) -> tuple[torch.Tensor, Grid]:
    """The part of a volume that linear interpolation at `part` can reach."""
    index = source.to_index(part.to_world(part.corners()))
    size = np.array(source.shape)
    start = np.clip(np.floor(index.min(axis=0)).astype(int) - 1, 0, size - 1)
    stop = np.clip(np.ceil(index.max(axis=0)).astype(int) + 2, start + 1, size)
    box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    first, last = (tuple(int(edge) for edge in ends) for ends in (start, stop))
    return values[(slice(None), *box)], source.crop(first, last)  # type: ignore[arg-type]
