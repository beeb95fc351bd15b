"""Slices as pictures: what each network's authors do to them, and where pixels come to lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from umdseg.data.geometry import Array

Style = Literal["sam", "medsam", "sam2", "medsam2"]
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Layout:
    """How slices of one size meet a network's square input.

    Attributes:
        style: `sam`: the longer side fills the input, the rest is padding at the right and the bottom; the
            others stretch both sides to fill it.
        edge: pixels of the input's sides.
        size: (rows, columns) of the slice.
        filled: (rows, columns) of the input that the slice takes.
    """

    style: Style
    edge: int
    size: tuple[int, int]
    filled: tuple[int, int]

    @classmethod
    def of(cls, style: Style, edge: int, size: tuple[int, int], spacing: tuple[float, float]) -> Layout:
        """The layout for slices of `size` pixels (rows, columns), `spacing` millimetres apart.

        `sam` keeps the proportions of the body, which on square pixels are those of the picture
        (`ResizeLongestSide` of segment-anything).
        """
        if style != "sam":
            return cls(style, edge, size, (edge, edge))
        # float noise in an affine must not make a square pixel oblong
        ratio = round(spacing[0] / spacing[1], 3)
        height, width = size[0] * ratio, float(size[1])
        scale = edge / max(height, width)
        filled = (max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
        return cls(style, edge, size, filled)

    def pixels(self, slices: torch.Tensor) -> torch.Tensor:
        """Network input (N, 3, edge, edge) float32.

        Args:
            slices: (N, 1 or 3, rows, columns) uint8; one channel is shown three times.
        """
        slices = slices.cpu()
        if self.style == "medsam":
            return torch.stack([_medsam(one, self.edge) for one in slices]).expand(-1, 3, -1, -1)
        # on uint8 torch's antialiased filters are Pillow's, which the authors use
        mode = "bicubic" if self.style == "medsam2" else "bilinear"
        resized = functional.interpolate(slices, size=self.filled, mode=mode, antialias=True)
        scaled = resized.expand(-1, 3, -1, -1).float() / 255
        scaled = (scaled - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]
        below, beside = (self.edge - n for n in self.filled)
        return functional.pad(scaled, (0, beside, 0, below))

    def to_input(self, xy: Array) -> torch.Tensor:
        """Pixels (..., 2) as (column, row) of the slice -> of the input."""
        (rows, columns), (height, width) = self.size, self.filled
        return torch.from_numpy(np.asarray(xy) * np.array([width / columns, height / rows])).float()

    def enlarge(self, low: torch.Tensor) -> torch.Tensor:
        """Low-resolution logits (N, h, w) -> logits (N, rows, columns) of the slices."""
        low = low.float()[:, None]
        if self.style == "medsam":
            # the authors interpolate probabilities; in two halves, so that neither end saturates
            inside, outside = (_resized(torch.sigmoid(sign * low), self.size) for sign in (1, -1))
            tiny = torch.finfo(torch.float32).tiny
            return (inside.clamp(min=tiny).log() - outside.clamp(min=tiny).log())[:, 0]
        if self.style == "sam":
            whole = _resized(low, (self.edge, self.edge))
            low = whole[..., : self.filled[0], : self.filled[1]]
        return _resized(low, self.size)[:, 0]


def _resized(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return functional.interpolate(values, size=size, mode="bilinear", align_corners=False)


def _medsam(one: torch.Tensor, edge: int) -> torch.Tensor:
    """(C, rows, columns) uint8 -> (C, edge, edge) from 0 to 1, as the authors' `MedSAM_Inference.py` does.

    That is scikit-image's `resize` with cubic splines and antialiasing, cut back to uint8, then minimum to
    maximum of the slice.
    """
    from scipy import ndimage

    made = []
    for picture in one.numpy().astype(np.float64):
        factors = [n / edge for n in picture.shape]
        sigma = [max(0.0, (factor - 1) / 2) for factor in factors]
        soft = ndimage.gaussian_filter(picture, sigma, mode="mirror") if any(sigma) else picture
        zoom = [edge / n for n in picture.shape]
        grown = ndimage.zoom(soft, zoom, order=3, mode="mirror", grid_mode=True)
        made.append(np.clip(grown, picture.min(), picture.max()).astype(np.uint8))
    stacked = np.stack(made).astype(np.float32)
    low, high = stacked.min(), stacked.max()
    return torch.from_numpy((stacked - low) / max(high - low, 1e-8))
