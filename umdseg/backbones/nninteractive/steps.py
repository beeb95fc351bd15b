"""Prompts in patient millimetres as the interactions nnInteractive takes, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid
from umdseg.prompts.raster import mark
from umdseg.vocabulary import Contour, Millimetres, Prompt

Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class Step:
    """One interaction on a grid.

    Attributes:
        kind: click, box, or contour.
        low: voxel index (x, y, z) of the click, or of the box's first voxel; a contour has a box around it.
        high: index after the last voxel.
        inside: whether it marks the structure (else what is not it).
        contour: lasso or scribble.
        mask: (X', Y', Z') voxels of the box that the contour marks.
    """

    kind: Literal["point", "box", "lasso", "scribble"]
    low: Voxel
    high: Voxel
    inside: bool = True
    contour: Contour | None = None
    mask: NDArray[np.bool_] | None = field(default=None, compare=False)


def steps(
    prompt: Prompt, grid: Grid, solid: bool, thickness: Sequence[float] = (2.0, 2.0, 2.0)
) -> list[Step]:
    """The box or the contours of a prompt, then its clicks in order; what lies outside the grid is left out.

    Contours become voxels as `umdseg.prompts.raster.mark` says.

    Args:
        prompt: kinds point, clicks, box, lasso or scribble.
        grid: of the scan or window.
        solid: whether the network was trained with three-dimensional boxes. Otherwise a box becomes a
            rectangle on one slice: the slice it lies on, or its middle axial one.
        thickness: of scribbles in voxels, by the grid's axes.
    """
    found = []
    if prompt.kind == "box" and prompt.box is not None:
        ends = _voxels(prompt.box, grid)
        if ends is not None:
            low, high = ends if solid else _rectangle(*ends, grid)
            found.append(Step("box", _voxel(low), _voxel(high)))
    if prompt.kind in ("lasso", "scribble"):
        found += _contours(prompt, grid, thickness)
    for point, sign in zip(prompt.points, prompt.signs, strict=True):
        # a thousandth of a voxel: affines in float32 must not make equal clicks differ
        index = np.round(grid.to_index(np.array([point]))[0], 3)
        if (index >= -0.5).all() and (index <= np.array(grid.shape) - 0.5).all():
            voxel = np.clip(np.rint(index).astype(int), 0, np.array(grid.shape) - 1)
            found.append(Step("point", _voxel(voxel), _voxel(voxel + 1), bool(sign)))
    return found


def _contours(prompt: Prompt, grid: Grid, thickness: Sequence[float]) -> list[Step]:
    found = []
    for contour in prompt.contours:
        marked = mark(contour, grid, thickness)
        if marked is not None:
            kind: Literal["lasso", "scribble"] = "lasso" if contour.closed else "scribble"
            ends = marked.start, marked.stop
            found.append(Step(kind, *ends, bool(contour.sign), contour, marked.mask))
    return found


def _voxels(box: tuple[Millimetres, Millimetres], grid: Grid) -> tuple[np.ndarray, np.ndarray] | None:
    """First and (exclusive) last voxel whose centres the box holds, at least one each way; None outside."""
    corners = np.array(np.meshgrid(*zip(*box, strict=True), indexing="ij")).reshape(3, -1).T
    index = np.round(grid.to_index(corners), 3)
    low, high = index.min(axis=0), index.max(axis=0)
    size = np.array(grid.shape)
    if (high < -0.5).any() or (low > size - 0.5).any():
        return None
    first = np.ceil(low).astype(int)
    last = np.floor(high).astype(int) + 1
    thin = last <= first
    middle = np.rint((low + high) / 2).astype(int)
    first, last = np.where(thin, middle, first), np.where(thin, middle + 1, last)
    first = np.clip(first, 0, size - 1)
    return first, np.clip(last, first + 1, size)


def _rectangle(low: np.ndarray, high: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    if (high - low > 1).all():
        # the array axis nearest to the patient's long axis
        axis = int(np.argmax(np.abs(grid.affine[2, :3]) / np.array(grid.spacing)))
        low, high = low.copy(), high.copy()
        low[axis] = (low[axis] + high[axis] - 1) // 2
        high[axis] = low[axis] + 1
    return low, high


def _voxel(index: Sequence[int] | np.ndarray) -> Voxel:
    x, y, z = (int(v) for v in index)
    return x, y, z
