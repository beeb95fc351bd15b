"""From a stitched volume to the logits of classes on any grid: resampling and a linear layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from umdseg.backbones.base import BACKGROUND
from umdseg.data.geometry import Grid
from umdseg.inference.sampling import crop_to, sample

# rows multiplied at a time
BLOCK = 16


@dataclass(frozen=True)
class ClassSampler:
    """Logits of some classes wherever they are asked for.

    Resampling and the linear layer commute, so whichever leaves fewer channels comes first, on the part
    of the volume that the output needs; K logits of the whole volume never exist.

    Attributes:
        canvas: (C + 1, X, Y, Z) stitched channels, 0 where nobody looked; the last is 1 where somebody did.
        grid: place of the canvas.
        rows: (M, C) weights of M logits on the channels; None: the channels are the logits. Of competing
            classes (M, C + 1): the last weight is the bias, which "somebody looked" carries.
        groups: per class asked for, the logits of its members (one, or a group's) among the M.
        compete: the M logits are all classes of one softmax; what counts is then the class's own logit less
            the highest of the others, positive where the class wins.
    """

    canvas: torch.Tensor
    grid: Grid
    rows: torch.Tensor | None
    groups: Sequence[Sequence[int]]
    compete: bool = False

    @property
    def channels(self) -> int:
        """How many channels are resampled, besides the last."""
        if self.compete:
            return len(self.canvas) - 1
        return len(self._used()) if self.rows is None else min(self.rows.shape)

    def on(self, part: Grid) -> torch.Tensor:
        """Logits (K, *part.shape) float32; background where nobody looked and outside the volume.

        A group's logit is its largest member's on `part`: the group is the union of its members there.
        """
        values, source = crop_to(self.canvas, self.grid, part)
        rows, groups = self.rows, self.groups
        if self.compete:
            values = sample(values, source, part, outside=0.0)
            out = _margins(_planes(values, rows), groups)
            return torch.where(values[-1] > 0.5, out, torch.full_like(out, BACKGROUND))
        if rows is None:
            used = self._used()
            values, groups = values[[*used, -1]], [[used.index(m) for m in group] for group in groups]
        elif len(rows) == self.channels:
            values, rows = torch.cat([_times(rows, values[:-1]), values[-1:]]), None
        values = sample(values, source, part, outside=0.0)
        out = _grouped(values[:-1], rows, groups)
        # channels are 0 where nobody looked, so the missing share of "looked" is all that is to add
        return out.add_(BACKGROUND * (1 - values[-1]))

    def _used(self) -> list[int]:
        return sorted({member for group in self.groups for member in group})


def _grouped(
    values: torch.Tensor, rows: torch.Tensor | None, groups: Sequence[Sequence[int]]
) -> torch.Tensor:
    """(C, X, Y, Z) -> (K, X, Y, Z): the largest of each group's logits `rows @ values` (None: `values`)."""
    if all(len(group) == 1 for group in groups):
        single = [group[0] for group in groups]
        if rows is not None:
            return _times(rows[single], values)
        return values if single == list(range(len(values))) else values[single]
    out = torch.full((len(groups), *values.shape[1:]), -torch.inf)
    wanted = [(k, member) for k, group in enumerate(groups) for member in group]
    # in blocks: a group of 60 bones needs no more memory than one of 16
    for start in range(0, len(wanted), BLOCK):
        block = wanted[start : start + BLOCK]
        members = [member for _, member in block]
        planes = values[members] if rows is None else _times(rows[members], values)
        for (k, _), plane in zip(block, planes, strict=True):
            torch.maximum(out[k], plane, out=out[k])
    return out


def _planes(values: torch.Tensor, rows: torch.Tensor | None) -> Iterator[torch.Tensor]:
    """The logits (X, Y, Z) of all classes in turn, from (C + 1, X, Y, Z); `BLOCK` of them exist at a time."""
    if rows is None:
        yield from values[:-1]
        return
    for start in range(0, len(rows), BLOCK):
        yield from _times(rows[start : start + BLOCK], values)


def _margins(planes: Iterator[torch.Tensor], groups: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of competing classes, one by one -> (K, X, Y, Z), own logit less the highest other."""
    asked: dict[int, list[int]] = {}
    for k, group in enumerate(groups):
        for member in group:
            asked.setdefault(member, []).append(k)
    several = [k for k, group in enumerate(groups) if len(group) > 1]
    own: dict[int, torch.Tensor] = {}
    rest: dict[int, torch.Tensor] = {}
    best = second = first = None
    for channel, plane in enumerate(planes):
        for k in asked.get(channel, ()):
            own[k] = _highest(own.get(k), plane)
        for k in several:
            if channel not in groups[k]:
                rest[k] = _highest(rest.get(k), plane)
        if best is None or second is None or first is None:
            best, second = plane.clone(), torch.full_like(plane, -torch.inf)
            first = torch.zeros(plane.shape, dtype=torch.int16)
            continue
        ahead = plane > best
        second = torch.where(ahead, best, torch.maximum(second, plane))
        best = torch.where(ahead, plane, best)
        first[ahead] = channel
    assert best is not None
    assert second is not None
    assert first is not None
    for k, group in enumerate(groups):
        if len(group) == 1:
            rest[k] = torch.where(first == group[0], second, best)
    return torch.stack([own[k] - rest[k] for k in range(len(groups))])


def _highest(known: torch.Tensor | None, plane: torch.Tensor) -> torch.Tensor:
    return plane.clone() if known is None else torch.maximum(known, plane, out=known)


def _times(rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """(M, C) times (C, X, Y, Z)."""
    return torch.einsum("mc,cxyz->mxyz", rows, values)
