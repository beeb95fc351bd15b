"""Mirrored training patches, for structures that have no side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from umdseg.errors import UserError

_SIDES = {"left", "right"}


def refuse_sides(structures: Sequence[str]) -> None:
    """Refuse to mirror structures that would turn into one another.

    Raises:
        UserError: naming the first that has a side.
    """
    sided = next((name for name in structures if _SIDES & set(name.split("_"))), None)
    if sided is not None:
        raise UserError(
            f"mirrored, '{sided}' is on the other side",
            where="data.augmentation.mirror",
            expected="false, or data.structures without left and right",
        )


def drawn_axes(rng: np.random.Generator) -> tuple[int, ...]:
    """The axes of a patch to mirror: each of the three half the time, as in nnU-Net's training."""
    return tuple(int(axis) for axis in np.flatnonzero(rng.random(3) < 0.5))


def mirrored(patch: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """(C, X, Y, Z) with some of the axes X, Y, Z (0, 1, 2) turned round."""
    return patch.flip([1 + axis for axis in axes]) if axes else patch


def mirrored_affine(affine: torch.Tensor, shape: Sequence[int], axes: Sequence[int]) -> torch.Tensor:
    """(4, 4) voxel index of the mirrored patch -> patient millimetres: what was seen stays where it was.

    Args:
        affine: of the patch as it was.
        shape: (X, Y, Z) voxels.
        axes: turned round.
    """
    turn = torch.eye(4, dtype=affine.dtype)
    for axis in axes:
        turn[axis, axis], turn[axis, 3] = -1, shape[axis] - 1
    return affine @ turn
