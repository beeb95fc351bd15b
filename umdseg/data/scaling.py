"""Voxel values -> network input: the intensity transforms that cards speak of."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch

Kind = Literal["window", "percentile", "standardise", "zscore", "nonzero", "as_is"]


class IntensityLike(Protocol):
    """See `umdseg.backbones.card.Intensity`."""

    @property
    def kind(self) -> Kind:
        """Which transform."""
        ...

    @property
    def low(self) -> float:
        """Lower end."""
        ...

    @property
    def high(self) -> float:
        """Upper end."""
        ...

    @property
    def mean(self) -> float:
        """Mean of the training data."""
        ...

    @property
    def std(self) -> float:
        """Standard deviation of the training data."""
        ...

    @property
    def to(self) -> tuple[float, float]:
        """Range mapped to."""
        ...

    @property
    def masked(self) -> bool:
        """Statistics from voxels above 0 only."""
        ...


def scale_intensity(image: torch.Tensor, intensity: IntensityLike) -> torch.Tensor:
    """Apply a card's transform to a volume (any shape, float32)."""
    if intensity.kind == "as_is":
        return image
    if intensity.kind == "standardise":
        return (image.clamp(intensity.low, intensity.high) - intensity.mean) / max(intensity.std, 1e-8)
    if intensity.kind == "zscore":
        seen = _seen(image, intensity)
        return (image - float(seen.mean())) / max(float(seen.std()), 1e-8)
    low, high = intensity.low, intensity.high
    if intensity.kind == "nonzero":
        image = _normalise_nonzero(image)
        low, high = float(image.min()), float(image.max())
    if intensity.kind == "percentile":
        # numpy, because torch.quantile stops at 16 million values
        low, high = (float(v) for v in np.percentile(_seen(image, intensity), [low, high]))
    width = high - low
    unit = ((image - low) / width if width > 0 else image - low).clamp(0, 1)
    floor, ceiling = intensity.to
    return unit if (floor, ceiling) == (0.0, 1.0) else floor + (ceiling - floor) * unit


def _normalise_nonzero(image: torch.Tensor) -> torch.Tensor:
    seen = image != 0
    values = image[seen]
    if not values.numel():
        return image
    std = float(values.std(unbiased=False))
    return torch.where(seen, (image - float(values.mean())) / (std or 1.0), image)


def _seen(image: torch.Tensor, intensity: IntensityLike) -> np.ndarray:
    values = image.numpy()
    above = values[values > 0] if intensity.masked else values
    return above if above.size else values
