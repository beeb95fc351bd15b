"""Opening a scan under a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from umdseg.backbones.base import Backbone
from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import read_image
from umdseg.data.preprocess import pad, prepare_image
from umdseg.errors import UserError
from umdseg.inference.preprocessing import check_window, preprocessing
from umdseg.inference.session import VolumeSession
from umdseg.inference.window import WindowSession
from umdseg.vocabulary import MODALITIES, Origin, Scan


def open(
    backbone: Backbone,
    scan: Scan | Volume | Path | str,
    modality: Origin | str | None = None,
    window: Sequence[int] | int | None = None,
    overlap: float | None = None,
    precision: str = "auto",
    skip_air: bool = True,
) -> VolumeSession:
    """Preprocess a scan as the model's card says and open a session on it.

    Args:
        backbone: model in eval mode.
        scan: a Scan, a Volume in the scan's units, or a NIfTI file.
        modality: ct, pet or mr, or an `Origin`, which adds tracer and site where adapters are chosen by
            those; a Scan states modality and tracer itself.
        window: voxels of one network pass; None = the card's (normalisation depends on it).
        overlap: share by which sliding windows overlap; None = the card's.
        precision: auto, fp32, bf16.
        skip_air: leave windows of nothing but air out.

    Raises:
        UserError: unreadable file, modality not given or unknown to the card, unsuitable window.
    """
    origin = _origin(scan, modality)
    if origin.modality is None:
        raise UserError("the modality of the image is not known", expected=f"modality={'|'.join(MODALITIES)}")
    edges = check_window(backbone.card, window)
    if isinstance(scan, Scan):
        volume = read_image(scan.image)
    else:
        volume = scan if isinstance(scan, Volume) else read_image(scan)
    if overlap is not None:
        check_overlap(overlap)
    own: VolumeSession | None = backbone.session(volume, origin, overlap=overlap, precision=precision)
    if own is not None:
        return own
    overlap = backbone.card.overlap if overlap is None else overlap
    prepared = prepare_image(volume, origin.modality, preprocessing(backbone.card, edges))
    return WindowSession(
        backbone,
        prepared.image,
        prepared.grid,
        volume.grid,
        modality=origin,
        window=edges,
        overlap=overlap,
        precision=precision,
        skip_air=skip_air,
    )


def _origin(scan: object, given: Origin | str | None) -> Origin:
    """What is given counts before what the scan states; a bare modality does not hide the scan's tracer."""
    if not isinstance(scan, Scan):
        return Origin.of(given)
    if isinstance(given, Origin):
        return Origin(
            given.modality or scan.modality, given.tracer or scan.tracer_or_sequence or "", given.site
        )
    return Origin(given or scan.modality, scan.tracer_or_sequence or "")


def open_tensor(
    backbone: Backbone,
    image: torch.Tensor,
    window: Sequence[int] | int | None = None,
    overlap: float | None = None,
    precision: str = "auto",
    skip_air: bool = True,
    grid: Grid | None = None,
    modality: Origin | str | None = None,
) -> VolumeSession:
    """Open a session on an already preprocessed tensor (1, 1, X, Y, Z).

    Without `grid`, voxel 0 is at 0 mm, the axes are RAS and the spacing is the card's.

    Raises:
        UserError: another shape, or an unsuitable window.
    """
    if image.ndim != 5 or image.shape[:2] != (1, 1):
        raise UserError(f"image tensor of shape {tuple(image.shape)}", expected="(1, 1, X, Y, Z)")
    edges = check_window(backbone.card, window)
    overlap = check_overlap(backbone.card.overlap if overlap is None else overlap)
    shape = (int(image.shape[2]), int(image.shape[3]), int(image.shape[4]))
    native = grid or Grid(shape, np.diag([*(backbone.card.spacing or (1.0, 1.0, 1.0)), 1.0]))
    padded, place = pad(image[0].float().cpu(), native, edges)
    return WindowSession(
        backbone,
        padded,
        place,
        native,
        modality=modality,
        window=edges,
        overlap=overlap,
        precision=precision,
        skip_air=skip_air,
    )


def check_overlap(overlap: float) -> float:
    """Refuse shares outside 0 <= overlap < 1."""
    if not 0 <= overlap < 1:
        expected = "a share of the window, 0 <= overlap < 1"
        raise UserError(f"windows cannot overlap by {overlap}", expected=expected)
    return overlap
