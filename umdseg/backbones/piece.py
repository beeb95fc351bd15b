"""Answers of native sessions: logits of a box of a scan's own voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from umdseg.backbones.base import BACKGROUND
from umdseg.backbones.slabs import slabs
from umdseg.data.geometry import Grid, resample_slabs


@dataclass(frozen=True)
class Piece:
    """What a model says of one structure.

    Attributes:
        values: (X', Y', Z') logits, of any type; background everywhere else. May be empty.
        start: index of the first voxel in the scan.
    """

    values: torch.Tensor
    start: tuple[int, int, int]

    def slab(self, shape: tuple[int, int, int], start: int, stop: int) -> torch.Tensor:
        """(X, Y, stop - start) float32 of the scan's own voxels, for a scan of `shape`."""
        out = torch.full((shape[0], shape[1], stop - start), BACKGROUND)
        x, y, z = self.start
        low, high = max(start, z), min(stop, z + self.values.shape[2])
        if low < high:
            place = (slice(x, x + self.values.shape[0]), slice(y, y + self.values.shape[1]))
            out[(*place, slice(low - start, high - start))] = self.values[..., low - z : high - z].float()
        return out

    def on(self, native: Grid, part: Grid) -> torch.Tensor:
        """(X, Y, Z) float32 resampled linearly from the scan's grid to any other."""
        out = torch.full(part.shape, BACKGROUND)
        if not self.values.numel():
            return out
        # only what interpolation can reach becomes float32
        index = native.to_index(part.to_world(part.corners())) - np.array(self.start)
        size = np.array(self.values.shape)
        low = np.clip(np.floor(index.min(axis=0)).astype(int) - 1, 0, size - 1)
        high = np.clip(np.ceil(index.max(axis=0)).astype(int) + 2, low + 1, size)
        values = self.values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].float()
        first, last = low + self.start, high + self.start
        place = native.crop(
            (int(first[0]), int(first[1]), int(first[2])), (int(last[0]), int(last[1]), int(last[2]))
        )
        pieces = resample_slabs(values[None], place, part, outside=BACKGROUND, slab=part.shape[2])
        return next(piece for _, piece in pieces)[0]


def scores(pieces: Sequence[Piece], native: Grid, target: Grid) -> Iterator[tuple[slice, torch.Tensor]]:
    """(z slice, (K, X, Y, dz) float32) on `target`; unchanged values where that is the scan's own grid."""
    own = target.same_as(native, tolerance_mm=1e-4)
    for place, part in slabs(target, len(pieces) + 4):
        planes = [
            piece.slab(native.shape, place.start, place.stop) if own else piece.on(native, part)
            for piece in pieces
        ]
        yield place, torch.stack(planes)
