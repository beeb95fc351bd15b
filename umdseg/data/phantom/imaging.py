"""Scanners: from a tissue map to a CT in HU, a T1 MR in a.u. and a PET in SUV.

Each scanner has its own grid. Between-subject means come from the tissue table, inside-tissue
variation from smooth fields fixed in space, and noise from the physics of each modality. Another
table of tissues or another field of view (`box`, patient millimetres) is another kind of subject.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from umdseg.data.geometry import Grid
from umdseg.data.phantom.body import FIELD_OF_VIEW, WARP_STEP, Extent, grid_over, texture
from umdseg.data.phantom.shapes import Field
from umdseg.data.phantom.tissues import TISSUES, Tissue
from umdseg.seeds import generator

Floats = NDArray[np.float32]
FWHM = 2.3548  # full width at half maximum of a unit Gaussian


@dataclass(frozen=True)
class Scanner:
    """Physical settings of the three simulated scanners.

    Attributes:
        ct_spacing: CT voxel in millimetres.
        mr_spacing: MR voxel in millimetres.
        pet_spacing: PET voxel in millimetres (each edge at least 4).
        ct_noise: range of the CT noise standard deviation in HU.
        contrast: share of CTs taken in the portal venous phase.
        mr_noise: range of the MR noise relative to the liver's signal.
        mr_bias: standard deviation of the logarithm of the bias field.
        psf: range of the PET point spread's FWHM in millimetres (at least 5).
        pet_counts: range of counts per voxel per SUV (lower is noisier).
    """

    ct_spacing: tuple[float, float, float] = (3.5, 3.5, 4.0)
    mr_spacing: tuple[float, float, float] = (3.75, 3.75, 5.0)
    pet_spacing: tuple[float, float, float] = (4.07, 4.07, 5.0)
    ct_noise: tuple[float, float] = (12.0, 28.0)
    contrast: float = 0.5
    mr_noise: tuple[float, float] = (0.04, 0.09)
    mr_bias: float = 0.18
    psf: tuple[float, float] = (5.0, 7.0)
    pet_counts: tuple[float, float] = (8.0, 25.0)

    def grid(self, modality: str, box: Extent = FIELD_OF_VIEW) -> Grid:
        """The scanner's voxel grid over the whole field of view."""
        spacing = {"ct": self.ct_spacing, "mr": self.mr_spacing, "pet": self.pet_spacing}[modality]
        return grid_over(box, spacing)


def computed_tomography(
    seed: int,
    codes: NDArray[np.uint8],
    grid: Grid,
    scanner: Scanner,
    tissues: Mapping[str, Tissue] = TISSUES,
    box: Extent = FIELD_OF_VIEW,
) -> NDArray[np.int16]:
    """CT in HU: tissue means, partial volume, correlated quantum noise."""
    rng = generator(seed, "ct")
    enhanced = float(rng.random() < scanner.contrast) * rng.uniform(0.7, 1.25)

    def value(tissue: Tissue) -> float:
        # lungs, fat and gas vary with their own spread; the dose of contrast is one for the body
        return _draw(rng, tissue.hu) + enhanced * tissue.enhanced

    field = texture(seed, "ct", grid, box=box)
    # texture is relative to how far a tissue is from air, as densities are
    image = _map(codes, tissues, value)
    image += 0.10 * _map(codes, tissues, lambda t: t.texture) * (image + 1000) * field
    image = gaussian_filter(image, 0.5)
    noise = gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), 0.6)
    image += noise * (rng.uniform(*scanner.ct_noise) / noise.std())
    return np.clip(np.round(image), -1024, 3071).astype(np.int16)


def magnetic_resonance(
    seed: int,
    codes: NDArray[np.uint8],
    grid: Grid,
    scanner: Scanner,
    tissues: Mapping[str, Tissue] = TISSUES,
    box: Extent = FIELD_OF_VIEW,
) -> Floats:
    """T1-weighted spoiled gradient echo in a.u. with bias field and Rician noise.

    Signal: S = M0 sin(a) (1 - E1) / (1 - E1 cos(a)), E1 = exp(-TR / T1) (Ernst equation).
    """
    rng = generator(seed, "mr")
    repetition, angle = 5.0, np.deg2rad(rng.uniform(9, 14))

    def value(tissue: Tissue) -> float:
        decay = np.exp(-repetition / max(_draw(rng, tissue.t1), 150.0))
        return float(tissue.density * np.sin(angle) * (1 - decay) / (1 - decay * np.cos(angle)))

    liver = np.exp(-repetition / tissues["liver"].t1[0])
    unit = tissues["liver"].density * np.sin(angle) * (1 - liver) / (1 - liver * np.cos(angle))
    signal = _map(codes, tissues, value) / np.float32(unit)
    signal *= 1 + _map(codes, tissues, lambda t: t.texture) * texture(seed, "mr", grid, box=box)
    signal = gaussian_filter(signal, 0.5)
    whole = grid_over(box, (10.0, 10.0, 10.0))
    bias = Field.draw(generator(seed, "bias"), whole, 2.5 * WARP_STEP, 1).on(grid)[0]
    signal *= np.exp(scanner.mr_bias * bias)
    sd = np.float32(rng.uniform(*scanner.mr_noise))
    real = signal + sd * rng.standard_normal(grid.shape, dtype=np.float32)
    imaginary = sd * rng.standard_normal(grid.shape, dtype=np.float32)
    gain = rng.uniform(200, 600)
    return np.asarray(gain * np.hypot(real, imaginary), dtype=np.float32)


def positron_emission(
    seed: int,
    codes: NDArray[np.uint8],
    grid: Grid,
    scanner: Scanner,
    tissues: Mapping[str, Tissue] = TISSUES,
    box: Extent = FIELD_OF_VIEW,
) -> Floats:
    """FDG PET in SUV: uptake, point spread, Poisson counts, reconstruction filter.

    The point spread and the filter together give the image its resolution; counts are drawn
    between them, so that noise is spatially correlated as in reconstructed PET.
    """
    rng = generator(seed, "pet")

    def value(tissue: Tissue) -> float:
        mean, sd = tissue.suv
        if mean == 0:
            return 0.0
        # uptake is skewed: log-normal with the table's mean and spread
        spread = np.sqrt(np.log1p((sd / mean) ** 2))
        return float(mean * np.exp(np.clip(rng.standard_normal(), -2.2, 2.2) * spread - spread**2 / 2))

    activity = _map(codes, tissues, value)
    variation = 1.5 * _map(codes, tissues, lambda t: t.texture) * texture(seed, "pet", grid, box=box)
    activity *= np.clip(1 + variation, 0.2, None)
    width = rng.uniform(*scanner.psf)
    blurred = gaussian_filter(activity, [width / FWHM / s for s in grid.spacing])
    counts = rng.uniform(*scanner.pet_counts)
    noisy = rng.poisson(np.clip(blurred, 0, None) * counts + 0.02 * counts) / counts - 0.02
    smooth = gaussian_filter(noisy.astype(np.float32), [4.0 / FWHM / s for s in grid.spacing])
    return np.asarray(np.clip(smooth, 0, None), dtype=np.float32)


def _draw(rng: np.random.Generator, spread: tuple[float, float]) -> float:
    return float(spread[0] + spread[1] * np.clip(rng.standard_normal(), -2.2, 2.2))


def _map(codes: NDArray[np.uint8], tissues: Mapping[str, Tissue], value: Callable[[Tissue], float]) -> Floats:
    table = np.zeros(256, dtype=np.float32)
    for tissue in tissues.values():
        table[tissue.code] = value(tissue)
    return np.asarray(table[codes])
