"""Small intensity changes for training. No flips: left and right organs have different names."""

from __future__ import annotations

import numpy as np
import torch


def vary_intensity(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random gamma (0.8 to 1.25), scale (0.9 to 1.1) and shift (-0.05 to 0.05) of 0-1 values, clipped.

    Ranges as in common 3-D practice (nnU-Net's gamma, MONAI's RandScaleIntensity and
    RandShiftIntensity), half as wide: adapters see few scans.
    """
    gamma = float(np.exp(rng.uniform(-0.22, 0.22)))
    scale, shift = float(rng.uniform(0.9, 1.1)), float(rng.uniform(-0.05, 0.05))
    return (image.clamp(0, 1) ** gamma * scale + shift).clamp(0, 1)
