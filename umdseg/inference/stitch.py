"""Sliding windows over a volume, blended with Gaussian weights."""

from __future__ import annotations

from collections.abc import Callable

import torch

Shape = tuple[int, int, int]
Place = tuple[slice, slice, slice]


def window_slices(shape: Shape, window: Shape, overlap: float) -> list[Place]:
    """Windows covering a volume of at least one window, in MONAI's order and places."""
    from monai.data.utils import dense_patch_slices

    step = [
        edge if edge == size else max(int(edge * (1 - overlap)), 1)
        for size, edge in zip(shape, window, strict=True)
    ]
    return [(x, y, z) for x, y, z in dense_patch_slices(shape, window, step)]


def importance(window: Shape, blending: str = "gaussian") -> torch.Tensor:
    """(X, Y, Z) weights of one window: Gaussian (sigma = 1/8 of the edge, as in nnU-Net) or constant."""
    from monai.data.utils import compute_importance_map

    return torch.as_tensor(compute_importance_map(window, mode=blending))


def stitch(
    image: torch.Tensor,
    predict: Callable[[torch.Tensor, Place], torch.Tensor],
    window: Shape,
    overlap: float,
    air: float | None,
    blending: str = "gaussian",
) -> torch.Tensor:
    """Blend what `predict` gives for each window.

    Args:
        image: (1, X, Y, Z), at least one window large.
        predict: (1, 1, *window) and its place -> (C, *window).
        window: voxels.
        overlap: share by which neighbouring windows overlap, 0 up to 1.
        air: windows without a value of at least this are left out; None looks at all.
        blending: gaussian or constant.

    Returns:
        (C + 1, X, Y, Z) float32 on the CPU: blended channels, 0 where no window was looked at; the
        last channel is 1 where one was, else 0.
    """
    shape = (int(image.shape[1]), int(image.shape[2]), int(image.shape[3]))
    weight = importance(window, blending)
    canvas: torch.Tensor | None = None
    for place in window_slices(shape, window, overlap):
        part = image[(slice(None), *place)]
        if air is not None and float(part.max()) < air:
            continue
        values = predict(part[None], place).float().cpu()
        if canvas is None:
            canvas = torch.zeros(values.shape[0] + 1, *shape)
        canvas[(slice(None, -1), *place)] += values * weight
        canvas[(-1, *place)] += weight
    if canvas is None:
        # nothing but air; one window all the same, because only the network knows its channels
        place = window_slices(shape, window, overlap)[0]
        return torch.zeros(predict(image[(slice(None), *place)][None], place).shape[0] + 1, *shape)
    canvas[:-1] /= canvas[-1].clamp(min=1e-12)
    canvas[-1] = (canvas[-1] > 0).float()
    return canvas
