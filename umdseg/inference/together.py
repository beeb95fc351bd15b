"""Several scans of one person at once, for models that take them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from umdseg.backbones.base import Backbone
from umdseg.data.geometry import Grid, Volume, canonical_grid, resample
from umdseg.data.preprocess import pad, prepare_together
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
        volumes: modality -> scan; all are brought onto the grid of the model's first channel; of a fused
            model, of the leading one.
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
    told: Origin | str = origin or "+".join(wanted)
    if isinstance(backbone, Fused):
        # beyond its field of view a scan is missing
        fused = backbone.part(wanted, {m: volumes[m].grid for m in wanted})
        inner: VolumeSession | None = fused.inner.fused_session(
            fused, {m: volumes[m] for m in wanted}, origin=told, precision=precision
        )
        if inner is not None:
            return inner
        backbone, window = fused, fused.training_window if window is None else window
    edges = check_window(card, window)
    image, place, native = (_prepared if isinstance(backbone, Fused) else _scaled)(backbone, volumes, edges)
    return WindowSession(
        backbone,
        image,
        place,
        native,
        modality=told,
        window=edges,
        overlap=check_overlap(card.overlap if overlap is None else overlap),
        precision=precision,
        # air of one modality may be the other's lesion
        skip_air=False,
    )


def _scaled(
    backbone: Backbone, volumes: Mapping[Modality, Volume], edges: Shape
) -> tuple[torch.Tensor, Grid, Grid]:
    """(M, X, Y, Z) of networks trained on several channels: all on the first one's grid, then scaled."""
    card, wanted = backbone.card, backbone.takes
    native = volumes[wanted[0]].grid
    grid = canonical_grid(native, card.spacing, card.orientation)
    planes = []
    for modality in wanted:
        values = torch.from_numpy(volumes[modality].array.astype("float32"))[None]
        beyond = None if modality == wanted[0] else _BEYOND.get(modality, 0.0)
        moved = resample(values, volumes[modality].grid, grid, outside=beyond)
        planes.append(scale_intensity(moved, card.intensity[modality]))
    return *pad(torch.cat(planes), grid, edges), native


def _prepared(
    backbone: Backbone, volumes: Mapping[Modality, Volume], edges: Shape
) -> tuple[torch.Tensor, Grid, Grid]:
    """(M, X, Y, Z) of fused models, on the leading scan's lattice."""
    assert isinstance(backbone, Fused)
    given = {m: volumes[m] for m in backbone.takes}
    made = prepare_together(given, backbone.leading, preprocessing(backbone.card, edges))
    return *pad(made.image, made.grid, edges), volumes[backbone.leading].grid
