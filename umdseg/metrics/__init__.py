"""Scores of label maps: overlap, surface distances, volumes."""

from __future__ import annotations

from umdseg.metrics.overlap import dice, lesion_errors
from umdseg.metrics.scores import METRICS, score_labels, score_masks
from umdseg.metrics.surface import surface_scores

__all__ = ["METRICS", "dice", "lesion_errors", "score_labels", "score_masks", "surface_scores"]
