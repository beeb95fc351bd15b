"""Small changes of training patches, by modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg.data.scaling import IntensityLike
from umdseg.errors import UserError

# a Gaussian's full width at half maximum is that many standard deviations
FWHM = 2.3548


@dataclass
class AugmentationOptions:
    """How far training patches are changed; 0 switches a change off.

    Shares are of the range that the model's preprocessing maps values to (of the patch's own range, where
    that is open: z-scores and values as they are).

    Attributes:
        gamma: exponent e^u, u up to this either way.
        scale: factor 1 + u.
        shift: added share of the range.
        ct_window_hu: both edges of the CT window move by up to this many HU, each by itself (10 to 40 HU
            differ between scanners and contrast phases; only where the model scales HU by fixed numbers).
        pet_noise: standard deviation of the noise of PET, relative to the value (0.1 to 0.3 as whole-body
            scans have it), drawn up to this.
        pet_blur_mm: further blurring of PET, full width at half maximum in mm, drawn up to this (scanners
            resolve 4 to 8 mm).
        mr_bias: coefficients of a smooth bias field of MR, drawn up to this (0.3 as MONAI's RandBiasField).
        misalign_mm: in paired samples, every scan but the reference moves by up to this along each axis, as
            breathing and motion between two scans do; the label stays with the scan that leads.
        mirror: turn each axis round half the time; refused where structures have a left and a right.
    """

    gamma: float = 0.22
    scale: float = 0.1
    shift: float = 0.05
    ct_window_hu: float = 0.0
    pet_noise: float = 0.0
    pet_blur_mm: float = 0.0
    mr_bias: float = 0.0
    misalign_mm: float = 0.0
    mirror: bool = False

    def validate(self) -> None:
        """Refuse negative strengths, and a scale that could turn values over.

        Raises:
            UserError: naming the config path.
        """
        for name, value in vars(self).items():
            if not value >= 0 or (name == "scale" and value >= 1):
                expected = "0 or more, below 1" if name == "scale" else "0 (off) or more"
                raise UserError(
                    f"{value} is out of range", where=f"data.augmentation.{name}", expected=expected
                )


def augment(
    image: torch.Tensor,
    affine: torch.Tensor,
    modality: str,
    intensity: IntensityLike,
    options: AugmentationOptions,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Change one preprocessed patch: what its scanner does differently first, then its brightness.

    Args:
        image: (1, X, Y, Z) float32, as the card's preprocessing leaves it.
        affine: (4, 4) voxel index -> patient millimetres.
        modality: ct, pet or mr.
        intensity: the card's transform of that modality.
        options: strengths.
        rng: decides everything.

    Returns:
        As `image`, within the range that values had.
    """
    low, high = _range(image, intensity)
    if not high > low:
        return image
    unit = ((image - low) / (high - low)).clamp(0, 1)
    if modality == "ct" and options.ct_window_hu > 0:
        unit = _moved_window(unit, low, high, intensity, options.ct_window_hu, rng)
    if modality == "pet":
        spacing = torch.linalg.norm(affine[:3, :3].double(), dim=0).numpy()
        unit = _pet(unit, spacing, options, rng)
    if modality == "mr" and options.mr_bias > 0:
        unit = _biased(unit, options.mr_bias, rng)
    return vary_intensity(unit, rng, options) * (high - low) + low


def vary_intensity(
    image: torch.Tensor, rng: np.random.Generator, options: AugmentationOptions | None = None
) -> torch.Tensor:
    """Random gamma (0.8 to 1.25), scale (0.9 to 1.1) and shift (-0.05 to 0.05) of 0-1 values, clipped.

    Ranges as in common 3-D practice (nnU-Net's gamma, MONAI's RandScaleIntensity and
    RandShiftIntensity), half as wide: adapters see few scans.
    """
    most = options or AugmentationOptions()
    gamma = float(np.exp(rng.uniform(-most.gamma, most.gamma)))
    scale = float(rng.uniform(1 - most.scale, 1 + most.scale))
    shift = float(rng.uniform(-most.shift, most.shift))
    varied: torch.Tensor = (image.clamp(0, 1) ** gamma * scale + shift).clamp(0, 1)
    return varied


def _range(image: torch.Tensor, intensity: IntensityLike) -> tuple[float, float]:
    if intensity.kind in ("window", "percentile", "nonzero"):
        return intensity.to
    return float(image.min()), float(image.max())


def _moved_window(
    unit: torch.Tensor,
    low: float,
    high: float,
    intensity: IntensityLike,
    most: float,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Values under a window with other edges; what the card's window cut off stays cut off."""
    if intensity.kind == "window":
        width = intensity.high - intensity.low
    elif intensity.kind == "standardise":
        # how many HU the patch's own range spans
        width = (high - low) * intensity.std
    else:
        return unit
    bottom, top = (float(edge) for edge in rng.uniform(-most, most, 2) / width)
    return ((unit - bottom) / max(1 + top - bottom, 0.1)).clamp(0, 1)


def _pet(
    unit: torch.Tensor, spacing: NDArray[np.float64], options: AugmentationOptions, rng: np.random.Generator
) -> torch.Tensor:
    """Blur, then noise whose deviation follows the mean, as of iterative reconstruction.

    Barrett, Wilson and Tsui, Phys Med Biol 39 (1994): the noise of EM images is log-normal, its deviation
    proportional to the image. It is correlated over about one resolution element (6 mm).
    """
    from scipy.ndimage import gaussian_filter

    values = unit.numpy()[0]
    if options.pet_blur_mm > 0:
        values = gaussian_filter(values, rng.uniform(0, options.pet_blur_mm) / FWHM / spacing, mode="nearest")
    if options.pet_noise > 0:
        grain = gaussian_filter(rng.standard_normal(values.shape), 6.0 / FWHM / spacing, mode="wrap")
        deviation = rng.uniform(0, options.pet_noise)
        values = values * np.exp(deviation * grain / grain.std() - deviation**2 / 2)
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None].clamp(0, 1)


def _biased(unit: torch.Tensor, most: float, rng: np.random.Generator) -> torch.Tensor:
    """MONAI's polynomial bias field, its mean effect taken out (brightness as a whole is `scale`)."""
    from monai.transforms import RandBiasField

    field: Any = RandBiasField(prob=1.0, coeff_range=(-most, most))
    field.set_random_state(seed=int(rng.integers(2**31)))
    shape = tuple(unit.shape[1:])
    factor = torch.as_tensor(field(torch.ones(1, *shape)))
    return (unit * (factor / factor.mean())).clamp(0, 1)
