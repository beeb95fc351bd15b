"""LightningModules: what a model is fitted to."""

from __future__ import annotations

from umdseg.tasks.options import FitOptions
from umdseg.tasks.segment import SegmentTask

__all__ = ["FitOptions", "SegmentTask"]
