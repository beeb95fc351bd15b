"""Cascades: the network of the stage before, and its segmentation of the scan (Isensee et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.backbones.nnunet import native
from umdseg.backbones.nnunet.part import Part
from umdseg.backbones.nnunet.predict import axes_of, predict
from umdseg.data.geometry import Volume


def earlier(
    part: Part,
    channels: Sequence[Volume],
    base: str | None,
    *,
    step: float,
    mirroring: bool,
    precision: str,
    device: Any,
) -> NDArray[np.integer[Any]] | None:
    """What the stage before finds in the scan, in all its folds; None for a network of one stage.

    Args:
        part: the later network.
        channels: volumes on one grid, in the order of both networks' channels.
        base: axis codes to which images are turned first; None = they are taken as they are.
        step: windows are this share of their edge apart.
        mirroring: average over mirrored inputs where the training allows it.
        precision: auto, fp32 or bf16.
        device: where the later network is.

    Returns:
        (X, Y, Z) values of dataset.json's labels on the scan's own grid.
    """
    if part.previous is None:
        return None
    first, net = part.previous
    grid = channels[0].grid
    found = predict(
        first,
        net.to(device),
        first.states if len(first.states) > 1 else [None],
        channels,
        base or axes_of(grid),
        step=step,
        mirroring=mirroring,
        precision=precision,
    )
    if not first.regions:
        return native.winners(first, found, grid)
    # nnU-Net writes regions over each other in the order that dataset.json gives
    painted = np.zeros(grid.shape, dtype=np.uint16)
    for channel, label in enumerate(first.labels.regions_class_order):
        painted[native.inside(first, found, grid, channel)] = label
    return painted
