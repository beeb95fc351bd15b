"""Whole volumes through a windowed network, in bounded memory."""

from __future__ import annotations

from umdseg.inference.opening import open, open_tensor
from umdseg.inference.preprocessing import preprocessing
from umdseg.inference.segment import label_map, segment
from umdseg.inference.session import VolumeSession

__all__ = ["VolumeSession", "label_map", "open", "open_tensor", "preprocessing", "segment"]
