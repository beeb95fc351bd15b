"""A scan as a network sees it: resampled, cropped, scaled, padded, as the model's card says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from umdseg.data.geometry import Grid, Volume, canonical_grid, resample
from umdseg.data.resampling import resample_image, resample_labels
from umdseg.data.scaling import IntensityLike, scale_intensity
from umdseg.errors import UserError
from umdseg.files import sha256_value
from umdseg.vocabulary import Modality

# raised whenever the same numbers give another result
_VERSION = 2


class CropLike(Protocol):
    """See `umdseg.backbones.card.Crop`."""

    @property
    def above(self) -> float:
        """Threshold of foreground."""
        ...

    @property
    def stage(self) -> Literal["before", "after"]:
        """On which values the threshold is."""
        ...

    @property
    def margin(self) -> int:
        """Voxels kept around the foreground."""
        ...


@dataclass(frozen=True)
class Preprocessing:
    """The numbers of a card that preprocessing needs.

    Attributes:
        spacing: millimetres of the network's grid along its own axes; None = the scan's own voxels.
        intensity: transform per modality.
        crop: foreground crop, or None.
        min_shape: voxels; smaller volumes are padded with 0 on both sides up to this (one window).
        orientation: directions in which the network's axes run.
    """

    spacing: tuple[float, float, float] | None
    intensity: Mapping[Modality, IntensityLike]
    crop: CropLike | None
    min_shape: tuple[int, int, int]
    orientation: str = "RAS"

    def fingerprint(self) -> str:
        """SHA-256 of everything that changes the result."""
        crop = self.crop and [self.crop.above, self.crop.stage, self.crop.margin]
        intensity = {
            m: [i.kind, i.low, i.high, i.mean, i.std, list(i.to), i.masked] for m, i in self.intensity.items()
        }
        return sha256_value([_VERSION, self.orientation, self.spacing, self.min_shape, crop, intensity])


@dataclass
class Prepared:
    """A preprocessed scan.

    Attributes:
        image: (1, X, Y, Z) float32, in the card's orientation, spacing and intensity scale.
        grid: its place in patient space.
    """

    image: torch.Tensor
    grid: Grid


def prepare_image(volume: Volume, modality: str, p: Preprocessing) -> Prepared:
    """Preprocess one scan: resample, crop (in scan units), scale, crop (on 0-1 values), pad.

    Args:
        volume: scan (X, Y, Z) in HU, SUV or a.u. on any grid.
        modality: picks the intensity transform.
        p: the card's numbers.

    Raises:
        UserError: the card has no intensity transform for the modality.
    """
    chosen = next((i for m, i in p.intensity.items() if m == modality), None)
    if chosen is None:
        known = ", ".join(p.intensity)
        raise UserError(f"the model's card says nothing about {modality}", expected=f"one of {known}")
    grid = canonical_grid(volume.grid, p.spacing, p.orientation)
    image = torch.from_numpy(resample_image(volume, grid))[None]
    if p.crop is not None and p.crop.stage == "before":
        image, grid = _crop(image, grid, p.crop)
    image = scale_intensity(image, chosen)
    if p.crop is not None and p.crop.stage == "after":
        image, grid = _crop(image, grid, p.crop)
    return Prepared(*pad(image, grid, p.min_shape))


def prepare_together(volumes: Mapping[Modality, Volume], leading: Modality, p: Preprocessing) -> Prepared:
    """Preprocess scans of one person, each by itself, and move all onto the leading one's lattice.

    As paired training patches are read: 0 where a scan does not reach.

    Args:
        volumes: modality -> scan in HU, SUV or a.u., in the order of the channels.
        leading: whose lattice.
        p: the card's numbers.

    Returns:
        Image (M, X, Y, Z) and its place.

    Raises:
        UserError: the card has no intensity transform for a modality.
    """
    found = {m: prepare_image(volume, m, p) for m, volume in volumes.items()}
    grid = found[leading].grid
    planes = [
        one.image if m == leading else resample(one.image, one.grid, grid, outside=0.0)
        for m, one in found.items()
    ]
    return Prepared(torch.cat(planes), grid)


def prepare_label(volume: Volume, ids: Sequence[int], grid: Grid) -> torch.Tensor:
    """Bring a label map onto a prepared scan's grid, see `umdseg.data.resampling.resample_labels`.

    Args:
        volume: label map (X, Y, Z), whole numbers.
        ids: ids that count; `ids[i]` becomes i + 1, all others 0.
        grid: grid of the prepared scan.

    Returns:
        (1, X, Y, Z) int16; 0 outside the scan's field of view.
    """
    table = np.zeros(max([int(volume.array.max()), *ids, 0]) + 1, dtype=np.int16)
    for position, number in enumerate(ids):
        table[number] = position + 1
    mapped = Volume(table[volume.array.astype(np.int64)], volume.grid)
    return torch.from_numpy(resample_labels(mapped, grid))[None]


def _crop(image: torch.Tensor, grid: Grid, crop: CropLike) -> tuple[torch.Tensor, Grid]:
    found = image[0] > crop.above
    if not bool(found.any()):
        return image, grid
    start, stop = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = torch.nonzero(found.sum(dim=others))[:, 0]
        start.append(max(int(hit[0]) - crop.margin, 0))
        stop.append(min(int(hit[-1]) + 1 + crop.margin, grid.shape[axis]))
    part = image[:, start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]]
    return part.contiguous(), grid.crop((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def pad(image: torch.Tensor, grid: Grid, shape: tuple[int, int, int]) -> tuple[torch.Tensor, Grid]:
    """Pad (1, X, Y, Z) with 0 on both sides up to `shape`; the grid follows."""
    missing = [max(wanted - has, 0) for wanted, has in zip(shape, grid.shape, strict=True)]
    if not any(missing):
        return image, grid
    low = [n // 2 for n in missing]
    high = [n - b for n, b in zip(missing, low, strict=True)]
    flat = [low[2], high[2], low[1], high[1], low[0], high[0]]
    padded = torch.nn.functional.pad(image, flat)
    stop = [n + h for n, h in zip(grid.shape, high, strict=True)]
    return padded, grid.crop((-low[0], -low[1], -low[2]), (stop[0], stop[1], stop[2]))
