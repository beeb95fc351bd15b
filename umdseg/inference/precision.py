"""Numeric precision of inference (defined with the backbones, whose own sessions need it too)."""

from umdseg.backbones.precision import Precision, autocast, has_bf16

__all__ = ["Precision", "autocast", "has_bf16"]
