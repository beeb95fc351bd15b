"""Label maps from sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg.backbones.base import Backbone
from umdseg.data.geometry import Grid, Volume
from umdseg.inference.opening import open, open_tensor
from umdseg.inference.session import VolumeSession
from umdseg.vocabulary import Origin, Scan


def label_map(
    session: VolumeSession, structures: Sequence[str], grid: Grid | None = None
) -> NDArray[np.int16]:
    """Per voxel the structure with the highest positive logit: value 1 + its position, else 0.

    Args:
        session: an open session.
        structures: names, in the order of the values.
        grid: (X, Y, Z) of the map; None = the scan's own grid.
    """
    target = grid or session.native
    found = np.zeros(target.shape, dtype=np.int16)
    if structures:
        for slab, logits in session.scores(structures, target):
            best, which = logits.max(dim=0)
            labels = torch.where(best > 0, which + 1, torch.zeros_like(which))
            found[..., slab] = labels.to(torch.int16).cpu().numpy()
    return found


def segment(
    backbone: Backbone,
    image: torch.Tensor | Scan | Volume | Path | str,
    structures: Sequence[str],
    *,
    modality: Origin | str | None = None,
    window: Sequence[int] | int | None = None,
    overlap: float | None = None,
    precision: str = "auto",
    skip_air: bool = True,
) -> NDArray[np.int16]:
    """Segment a scan by class.

    Args:
        backbone: model in eval mode.
        image: a NIfTI path, Scan or Volume gets the card's preprocessing; a tensor (1, 1, X, Y, Z) is
            taken as already preprocessed.
        structures: canonical names.
        modality: ct, pet or mr, where the image does not say; or an `Origin` with tracer and site.
        window: voxels of one network pass; None = the card's.
        overlap: share by which windows overlap; None = the card's.
        precision: auto, fp32, bf16.
        skip_air: leave windows of nothing but air out.

    Returns:
        (X, Y, Z) on the image's own grid; value = 1 + position in `structures`, 0 = none of them.

    Raises:
        UserError: unreadable image, unknown structure, unsuitable window.
    """
    if isinstance(image, torch.Tensor):
        session = open_tensor(backbone, image, window, overlap, precision, skip_air, modality=modality)
    else:
        session = open(backbone, image, modality, window, overlap, precision, skip_air)
    return label_map(session, structures)
