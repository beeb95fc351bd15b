"""Several scans of one person at once, for models that take them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from umdseg.backbones.base import Backbone
from umdseg.data.geometry import Grid, Volume, canonical_grid, resample
from umdseg.data.preprocess import pad, prepare_image
from umdseg.data.scaling import scale_intensity
from umdseg.errors import UserError
from umdseg.fusion.base import Fused
from umdseg.inference.opening import check_overlap
from umdseg.inference.preprocessing import check_window, preprocessing
from umdseg.inference.session import VolumeSession
from umdseg.inference.stitch import Shape
from umdseg.inference.window import WindowSession
from umdseg.vocabulary import Modality, Origin

# what lies beyond a further channel's field of view: air in HU, no uptake
_BEYOND: dict[str, float] = {"ct": -1024.0}


def open_together(
    backbone: Backbone,
    volumes: Mapping[Modality, Volume],
    window: Sequence[int] | int | None = None,
    overlap: float | None = None,
    precision: str = "auto",
    origin: Origin | None = None,
) -> VolumeSession:
    """Open a session on scans that share one patient space.

    Args:
        backbone: model in eval mode that takes several modalities (`takes`).
        volumes: modality -> scan; all are brought onto the grid of the model's first channel.
        window: voxels of one network pass; None = the card's.
        overlap: share by which sliding windows overlap; None = the card's.
        precision: auto, fp32, bf16.
        origin: where the scans come from, for adapters per tracer or site.

    Raises:
        UserError: a modality is missing or not wanted, or the model takes one scan at a time.
    """
    card, wanted = backbone.card, backbone.takes
    if not wanted or set(volumes) != set(wanted):
        raise UserError(
            f"model {card.name} was given {' and '.join(volumes) or 'nothing'}",
            expected=f"exactly {' and '.join(wanted)} of one person" if wanted else "one scan at a time",
        )
    own: Any = getattr(backbone, "session_of", None)
    if own is not None:
        session: VolumeSession = own(volumes, overlap=overlap, precision=precision)
        return session
    if window is None and isinstance(backbone, Fused):
        window = backbone.training_window
    edges = check_window(card, window)
    image, place = (_prepared if isinstance(backbone, Fused) else _scaled)(backbone, volumes, edges)
    return WindowSession(
        backbone,
        image,
        place,
        volumes[wanted[0]].grid,
        modality=origin or "+".join(wanted),
        window=edges,
        overlap=check_overlap(card.overlap if overlap is None else overlap),
        precision=precision,
        # air of one modality may be the other's lesion
        skip_air=False,
    )


def _scaled(
    backbone: Backbone, volumes: Mapping[Modality, Volume], edges: Shape
) -> tuple[torch.Tensor, Grid]:
    """(M, X, Y, Z) of networks trained on several channels: all on the first one's grid, then scaled."""
    card, wanted = backbone.card, backbone.takes
    grid = canonical_grid(volumes[wanted[0]].grid, card.spacing, card.orientation)
    planes = []
    for modality in wanted:
        values = torch.from_numpy(volumes[modality].array.astype("float32"))[None]
        beyond = None if modality == wanted[0] else _BEYOND.get(modality, 0.0)
        moved = resample(values, volumes[modality].grid, grid, outside=beyond)
        planes.append(scale_intensity(moved, card.intensity[modality]))
    return pad(torch.cat(planes), grid, edges)


def _prepared(
    backbone: Backbone, volumes: Mapping[Modality, Volume], edges: Shape
) -> tuple[torch.Tensor, Grid]:
    """(M, X, Y, Z) of fused models: each scan prepared by itself, then moved onto the leading one's lattice.

    As their training patches are read: 0 where a scan does not reach.
    """
    assert isinstance(backbone, Fused)
    numbers = preprocessing(backbone.card, edges)
    found = {m: prepare_image(volumes[m], m, numbers) for m in backbone.takes}
    grid = found[backbone.leading].grid
    planes = [
        own.image if m == backbone.leading else resample(own.image, own.grid, grid, outside=0.0)
        for m, own in found.items()
    ]
    return pad(torch.cat(planes), grid, edges)
