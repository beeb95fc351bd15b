"""From a network's logits to the scan's own grid, by nnU-Net's own resampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg.backbones.nnunet.part import Part
from umdseg.backbones.nnunet.predict import Predicted, axes_of, turned
from umdseg.data.geometry import Grid
from umdseg.progress import track


def winners(part: Part, found: Predicted, native: Grid) -> NDArray[np.integer[Any]]:
    """nnU-Net's segmentation: the class with the highest logit, the first of equals; 0 outside the crop.

    One class at a time is resampled, so K logits of the whole scan never exist.

    Returns:
        (X, Y, Z) on the scan's own grid, one or two bytes a voxel.
    """
    best = _resampled(part, found, 0).copy()
    kind = np.uint8 if part.heads <= 256 else np.uint16
    winner = np.zeros(best.shape, dtype=kind)
    for channel in track(range(1, part.heads), "nnU-Net, resampling", unit="channel"):
        plane = _resampled(part, found, channel)
        better = plane > best
        winner[better] = channel
        np.copyto(best, plane, where=better)
    return _whole(winner, found, native)


def inside(part: Part, found: Predicted, native: Grid, channel: int) -> NDArray[np.bool_]:
    """(X, Y, Z) on the scan's own grid: where nnU-Net puts a region's probability above 1/2."""
    plane = torch.from_numpy(_resampled(part, found, channel)).float()
    return _whole(torch.sigmoid(plane).numpy() > 0.5, found, native)


def _resampled(part: Part, found: Predicted, channel: int) -> NDArray[Any]:
    """One class's logits on the crop of the scan, in the network's axes."""
    spacing = [found.properties["spacing"][axis] for axis in part.plans.transpose_forward]
    # slices that a 2-D network sees keep their distance
    own = [*spacing[:1], *part.configuration.spacing][-3:]
    out: Any = part.configuration.resampling_fn_probabilities(
        found.logits[channel : channel + 1],
        found.properties["shape_after_cropping_and_before_resampling"],
        own,
        spacing,
    )
    plane: NDArray[Any] = np.asarray(out)[0]
    return plane


def _whole(crop: NDArray[Any], found: Predicted, native: Grid) -> NDArray[Any]:
    full = np.zeros(found.properties["shape_before_cropping"], dtype=crop.dtype)
    full[tuple(slice(a, b) for a, b in found.properties["bbox_used_for_cropping"])] = crop
    return np.ascontiguousarray(turned(full, found.codes, axes_of(native)))
