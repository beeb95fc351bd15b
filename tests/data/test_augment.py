"""Augmentation by modality, each change against what it claims; scales of all kinds keep their range."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umdseg.backbones.card import Intensity
from umdseg.data.augment import AugmentationOptions, augment, vary_intensity
from umdseg.errors import UserError

AFFINE = torch.diag(torch.tensor([-2.0, 2.0, 4.0, 1.0]))
OFF = {"gamma": 0.0, "scale": 0.0, "shift": 0.0}
HU = Intensity("window", -1000.0, 1000.0)


def changed(image: torch.Tensor, modality: str, scale: Intensity, seed: int = 0, **strengths) -> torch.Tensor:
    options = AugmentationOptions(**{**OFF, **strengths})
    return augment(image, AFFINE, modality, scale, options, np.random.default_rng(seed))


def ramp(low: float, high: float) -> torch.Tensor:
    return torch.linspace(low, high, 16 * 16 * 8).reshape(1, 16, 16, 8)


def test_unit_scale_gets_what_it_got_before_modalities_were_told_apart() -> None:
    image = ramp(0, 1)
    for modality in ("ct", "pet", "mr"):
        got = augment(image, AFFINE, modality, HU, AugmentationOptions(), np.random.default_rng(3))
        assert torch.equal(got, vary_intensity(image, np.random.default_rng(3)))
        # gamma, scale and shift by hand
        rng = np.random.default_rng(3)
        g, s, t = np.exp(rng.uniform(-0.22, 0.22)), rng.uniform(0.9, 1.1), rng.uniform(-0.05, 0.05)
        torch.testing.assert_close(got, (image**g * s + t).clamp(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "low", "high"),
    [
        (Intensity("window", 0.0, 400.0, to=(0.0, 255.0)), 0.0, 255.0),
        (Intensity("percentile", 1.0, 99.0, to=(-1.0, 1.0)), -1.0, 1.0),
        (Intensity("standardise", -500.0, 900.0, mean=40.0, std=120.0), -4.5, 7.2),
        (Intensity("zscore"), -1.3, 6.0),
        (Intensity("as_is"), -1000.0, 2000.0),
    ],
)
def test_scales_of_all_kinds_are_changed_alike_and_keep_their_range(scale, low, high) -> None:
    unit = augment(ramp(0, 1), AFFINE, "mr", HU, AugmentationOptions(), np.random.default_rng(5))
    got = augment(ramp(low, high), AFFINE, "mr", scale, AugmentationOptions(), np.random.default_rng(5))
    torch.testing.assert_close(got, low + (high - low) * unit, rtol=1e-4, atol=1e-3)


def test_a_patch_of_one_value_stays_where_the_scale_is_open() -> None:
    flat = torch.full((1, 4, 4, 4), 3.0)
    assert torch.equal(changed(flat, "pet", Intensity("zscore"), pet_noise=1.0, gamma=0.3), flat)


def test_nothing_is_drawn_for_what_is_off_or_of_another_modality() -> None:
    image = ramp(0, 1)
    assert torch.equal(changed(image, "ct", HU, pet_noise=0.3, pet_blur_mm=5, mr_bias=0.3), image)
    assert torch.equal(changed(image, "pet", HU, ct_window_hu=40, mr_bias=0.3), image)
    assert torch.equal(changed(image, "mr", HU, ct_window_hu=40, pet_noise=0.3), image)


@pytest.mark.parametrize("kind", ["window", "standardise"])
def test_ct_window_moves_by_no_more_than_its_hounsfield_units(kind: str) -> None:
    hounsfield = ramp(-1000, 1000)
    scale = HU if kind == "window" else Intensity("standardise", -1000.0, 1000.0, mean=50.0, std=200.0)
    image = (hounsfield + 1000) / 2000 if kind == "window" else (hounsfield - 50) / 200
    seen = []
    for seed in range(20):
        got = changed(image, "ct", scale, seed, ct_window_hu=40.0)
        back = got * 2000 - 1000 if kind == "window" else got * 200 + 50
        seen.append(float((back - hounsfield).abs().max()))
    # an edge moved by 40 HU moves a value near it by as much, times how much the window narrows
    assert 20 < max(seen) < 45


def test_a_ct_scale_that_knows_no_hounsfield_units_has_no_window_to_move() -> None:
    assert torch.equal(
        changed(ramp(0, 1), "ct", Intensity("percentile", 1, 99), ct_window_hu=40.0), ramp(0, 1)
    )


def test_pet_noise_is_relative_to_the_value_and_keeps_the_mean() -> None:
    image = torch.full((1, 40, 40, 40), 0.1)
    image[:, 20:] = 0.4
    ratios, spread = [], []
    for seed in range(12):
        got = changed(image, "pet", HU, seed, pet_noise=0.3)
        cold, warm = got[:, :20], got[:, 20:]
        ratios.append(float((warm.std() / warm.mean()) / (cold.std() / cold.mean())))
        spread.append(float(warm.std() / warm.mean()))
        assert float(warm.mean()) == pytest.approx(0.4, rel=0.1)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.15)
    assert 0.0 < min(spread) < max(spread) < 0.36
    # neighbours share their noise: one resolution element is wider than a voxel
    noise = (changed(image, "pet", HU, 1, pet_noise=0.3)[0, 20:] / 0.4 - 1).numpy()
    assert np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1] > 0.5


def test_pet_blur_widens_a_point_by_at_most_its_width_in_millimetres() -> None:
    image = torch.zeros(1, 33, 33, 33)
    image[0, 16, 16, 16] = 1.0
    widths = []
    for seed in range(10):
        got = changed(image, "pet", HU, seed, pet_blur_mm=12.0)[0].numpy()
        assert got.sum() == pytest.approx(1.0, rel=1e-3)
        index = np.stack(np.meshgrid(*[np.arange(33) - 16] * 3, indexing="ij"))
        variance = [(got * (index[axis] * step) ** 2).sum() for axis, step in enumerate((2.0, 2.0, 4.0))]
        widths.append(2.3548 * np.sqrt(variance))
    widths = np.array(widths)
    assert (widths < 12.5).all()
    assert widths.max() > 8
    wide = widths[widths[:, 2] > 6]
    np.testing.assert_allclose(wide[:, 0], wide[:, 2], rtol=0.1)


def test_mr_bias_is_smooth_and_keeps_the_brightness() -> None:
    image = torch.full((1, 24, 24, 24), 0.4)
    got = changed(image, "mr", HU, 2, mr_bias=0.3)
    assert float(got.mean()) == pytest.approx(0.4, rel=0.02)
    assert float(got.std()) > 0.005
    steps = max(float(got.diff(dim=axis).abs().max()) for axis in (1, 2, 3))
    assert steps < 0.35 * float(got.max() - got.min())
    assert torch.equal(got, changed(image, "mr", HU, 2, mr_bias=0.3))
    assert not torch.equal(got, changed(image, "mr", HU, 3, mr_bias=0.3))


@pytest.mark.parametrize("name", ["pet_noise", "misalign_mm", "gamma"])
def test_negative_strengths_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"data\.augmentation\.{name}"):
        AugmentationOptions(**{name: -0.1}).validate()
