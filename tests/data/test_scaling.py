"""Intensity transforms against MONAI's and nnU-Net's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import (
    NormalizeIntensity,
    ScaleIntensity,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
)

from umdseg.backbones.card import Intensity
from umdseg.data.scaling import scale_intensity

IMAGE = torch.from_numpy(np.random.default_rng(0).normal(20, 80, size=(1, 9, 10, 11)).astype(np.float32))


def test_windows_and_percentiles_of_any_range_are_monais() -> None:
    window = scale_intensity(IMAGE, Intensity("window", -175, 250, to=(-1, 1)))
    oracle = ScaleIntensityRange(-175, 250, -1, 1, clip=True)(IMAGE)
    torch.testing.assert_close(window, torch.as_tensor(oracle), rtol=0, atol=1e-5)
    share = scale_intensity(IMAGE, Intensity("percentile", 1, 99))
    oracle = ScaleIntensityRangePercentiles(1, 99, 0, 1, clip=True)(IMAGE)
    torch.testing.assert_close(share, torch.as_tensor(oracle), rtol=0, atol=1e-5)


def test_masked_percentiles_ignore_what_is_not_above_zero() -> None:
    positive = IMAGE.clamp(min=0)
    found = scale_intensity(positive, Intensity("percentile", 0.5, 99.5, masked=True))
    low, high = np.percentile(positive[positive > 0].numpy(), [0.5, 99.5])
    expected = (np.clip(positive.numpy(), low, high) - low) / (high - low)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_z_scores_are_monais_and_masked_ones_ignore_air() -> None:
    found = scale_intensity(IMAGE, Intensity("zscore"))
    torch.testing.assert_close(found, torch.as_tensor(NormalizeIntensity()(IMAGE)), rtol=0, atol=1e-4)
    masked = scale_intensity(IMAGE, Intensity("zscore", masked=True))
    seen = IMAGE[IMAGE > 0]
    torch.testing.assert_close(masked, (IMAGE - seen.mean()) / seen.std(correction=0))


def test_normalising_what_is_not_zero_is_monais() -> None:
    image = torch.where(IMAGE > 60, 0.0, IMAGE)
    oracle = ScaleIntensity(-1.0, 1.0)(NormalizeIntensity(nonzero=True)(image.clone()))
    found = scale_intensity(image, Intensity("nonzero", to=(-1.0, 1.0)))
    torch.testing.assert_close(found, torch.as_tensor(oracle), rtol=0, atol=1e-5)
    assert torch.isfinite(
        scale_intensity(torch.zeros(1, 3, 3, 3), Intensity("nonzero", to=(-1.0, 1.0)))
    ).all()


def test_the_ct_scheme_of_nnunet_clips_before_it_standardises() -> None:
    found = scale_intensity(IMAGE, Intensity("standardise", -50, 100, mean=30, std=40))
    np.testing.assert_allclose(found.numpy(), (np.clip(IMAGE.numpy(), -50, 100) - 30) / 40, rtol=1e-5)


def test_as_is_and_the_value_of_air() -> None:
    assert scale_intensity(IMAGE, Intensity("as_is")) is IMAGE
    assert Intensity("window", -1000, 1000, to=(-1, 1)).air == pytest.approx(-0.96)
    assert Intensity("zscore").air is None


def test_a_constant_volume_stays_finite() -> None:
    flat = torch.full((1, 3, 3, 3), 7.0)
    for kind in ("window", "percentile", "zscore", "standardise"):
        assert torch.isfinite(scale_intensity(flat, Intensity(kind, 1, 99))).all()
