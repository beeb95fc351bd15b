"""Prompts in patient millimetres -> prompts of single slices, and of the slices beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage

from umdseg.backbones.vista3d_points import inside
from umdseg.data.geometry import Array
from umdseg.vocabulary import Prompt

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Ask:
    """What one slice is asked.

    Attributes:
        points: (N, 2) clicks as (column, row) pixels of the slice.
        signs: (N,) 1 inside the structure, 0 outside.
        box: first column, first row, last column, last row, in pixels.
        low: (h, w) logits of the slice before it, or None.
    """

    points: Array = field(default_factory=lambda: np.zeros((0, 2)))
    signs: tuple[int, ...] = ()
    box: Box | None = None
    low: torch.Tensor | None = None

    def with_clicks(self, clicks: Ask | None) -> Ask:
        """The same with more clicks."""
        if clicks is None:
            return self
        points = np.concatenate([self.points, clicks.points])
        return Ask(points, (*self.signs, *clicks.signs), self.box, self.low)


@dataclass(frozen=True)
class Placed:
    """A prompt on a stack of slices.

    Attributes:
        keys: slices that are asked by the user's own prompt.
        clicks: slice -> clicks on it.
        box: what a slice inside the stated box is asked, or None where there is no box.
        reach: first and last slice that may be asked.
    """

    keys: tuple[int, ...]
    clicks: Mapping[int, Ask]
    box: Ask | None
    reach: tuple[int, int]

    def first(self, key: int) -> Ask:
        """What a key slice is asked."""
        return (self.box or Ask()).with_clicks(self.clicks.get(key))


def place(prompt: Prompt, affine: torch.Tensor, shape: tuple[int, int, int]) -> Placed:
    """A prompt on slices (X, Y) along the last axis of a window; parts outside it are ignored.

    Slices with a click inside the structure are keys. A box makes one key, its middle slice; on oblique axes
    it is the smallest upright box around the stated one, and no slice beyond it is asked.

    Args:
        prompt: in patient millimetres.
        affine: (4, 4) voxel index of the window -> patient millimetres.
        shape: (X, Y, Z) of the window.
    """
    voxels, signs = inside(prompt, affine, shape)
    clicks: dict[int, Ask] = {}
    last = np.array(shape) - 1
    # a click between the centres of the last two slices is still on the last
    for voxel, sign in zip(np.clip(voxels.numpy(), 0, last), signs.tolist(), strict=True):
        number = int(np.floor(voxel[2] + 0.5))
        clicks[number] = Ask(voxel[None, :2], (sign,)).with_clicks(clicks.get(number))
    if prompt.box is None:
        keys = tuple(sorted(z for z, ask in clicks.items() if any(ask.signs)))
        return Placed(keys, clicks, None, (0, shape[2] - 1))
    low, high = _upright(prompt.box, affine)
    if (high < -0.5).any() or (low > last + 0.5).any():
        return Placed((), {}, None, (0, -1))
    # from the centre of the first voxel that the box holds to that of the last
    first, final = np.clip(low + 0.5, 0, last), np.clip(high - 0.5, 0, last)
    middle = np.clip((low + high) / 2, 0, last)
    first, final = np.minimum(first, middle), np.maximum(final, middle)
    start, stop = int(np.ceil(first[2] - 1e-3)), int(np.floor(final[2] + 1e-3))
    if start > stop:
        start = stop = int(np.floor(middle[2] + 0.5))
    box = Ask(box=(float(first[0]), float(first[1]), float(final[0]), float(final[1])))
    return Placed(((start + stop) // 2,), clicks, box, (start, stop))


def _upright(box: tuple[tuple[float, ...], ...], affine: torch.Tensor) -> tuple[Array, Array]:
    """Lower and upper voxel index of a box's corners, to a thousandth of a voxel."""
    ends = np.array(box, dtype=np.float64).T
    corners = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1).T
    inverse = np.linalg.inv(affine.to("cpu", torch.float64).numpy())
    index = np.round(corners @ inverse[:3, :3].T + inverse[:3, 3], 3)
    return index.min(axis=0), index.max(axis=0)


def follow(logits: torch.Tensor, low: torch.Tensor, how: str) -> Ask | None:
    """What the next slice is asked after one was answered; None where the mask is empty.

    Args:
        logits: (rows, columns) of the answer.
        low: (h, w) the same as the network gave it.
        how: box, point or mask (see `Sam2dOptions`).
    """
    mask = (logits > 0).cpu().numpy()
    if not mask.any():
        return None
    if how == "point":
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(np.argmax(depth)), mask.shape)
        return Ask(np.array([[float(column), float(row)]]), (1,))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1]))
    return Ask(box=box, low=low if how == "mask" else None)
