"""Clicks in VISTA3D's own terms, and their merging with what the class branch found."""

from __future__ import annotations

from typing import Any, cast

import torch

from umdseg.errors import UserError
from umdseg.vocabulary import Prompt


def inside(
    prompt: Prompt, affine: torch.Tensor, shape: tuple[int, int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Voxel coordinates (N, 3) and signs (N,) of the points that lie in a window.

    Args:
        prompt: points in patient millimetres.
        affine: (4, 4) voxel index of the window -> patient millimetres.
        shape: (X, Y, Z) of the window.
    """
    world = torch.tensor(prompt.points, dtype=torch.float64).reshape(-1, 3)
    inverse = torch.linalg.inv(affine.to("cpu", torch.float64))
    # a thousandth of a voxel: affines in float32 must not make equal clicks differ
    voxel = torch.round(world @ inverse[:3, :3].T + inverse[:3, 3], decimals=3)
    edge = torch.tensor(shape, dtype=torch.float64) - 0.5
    keep = ((voxel >= -0.5) & (voxel <= edge)).all(dim=1)
    return voxel[keep], torch.tensor(prompt.signs, dtype=torch.long)[keep]


def merge_by_components(
    net: Any, automatic: torch.Tensor, clicked: torch.Tensor, coords: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Change the automatic answer only where a connected component holds a click (arXiv 2406.05285, Alg. 1).

    Args:
        net: MONAI's VISTA3D, whose `connected_components_combine` does it.
        automatic: (X, Y, Z) logits of the class branch.
        clicked: (X, Y, Z) logits of the point branch.
        coords: (N, 3) voxel coordinates of the clicks.
        labels: (N,) 0 or 2 outside, 1 or 3 inside.

    Returns:
        (X, Y, Z): `clicked` in components that are added or removed, `automatic` elsewhere.

    Raises:
        UserError: scikit-image, with which MONAI finds components, is not installed.
    """
    from monai.transforms.utils import has_measure

    if not has_measure:
        raise UserError(
            "merging class and clicks needs the package 'scikit-image', which is not installed",
            expected="pip install scikit-image",
        )
    # MONAI rounds coordinates to look values up: half a voxel beyond the last centre would be outside
    last = torch.tensor(automatic.shape, dtype=coords.dtype) - 1
    merged = net.connected_components_combine(
        # it writes into both
        automatic[None, None].clone(),
        clicked[None, None].to(automatic.dtype, copy=True),
        torch.minimum(coords.clamp(min=0), last)[None],
        labels[None],
        torch.ones(1, dtype=torch.bool),
    )
    return cast(torch.Tensor, merged[0, 0])
