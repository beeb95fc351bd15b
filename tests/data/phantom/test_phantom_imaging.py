"""The simulated scanners against closed forms and published ranges."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from umdseg.data.geometry import Grid, Volume
from umdseg.data.phantom.imaging import FWHM, Scanner, magnetic_resonance, positron_emission
from umdseg.data.phantom.subject import STRUCTURES, render
from umdseg.data.phantom.tissues import TISSUES

Scans = dict[tuple[int, str], tuple[Volume, Volume]]
COARSE = Scanner(ct_spacing=(5, 5, 5), mr_spacing=(5, 5, 5), pet_spacing=(5, 5, 5))


@pytest.fixture(scope="module")
def scans() -> Scans:
    return {(seed, m): render(seed, m, COARSE) for seed in (1, 2) for m in ("ct", "mr", "pet")}


def _inside(scan: tuple[Volume, Volume], structure: str) -> np.ndarray:
    image, label = scan
    mask = binary_erosion(label.array == STRUCTURES[structure])
    return np.asarray(image.array[mask], dtype=float)


def test_ct_is_in_hounsfield_units(scans: Scans) -> None:
    for seed in (1, 2):
        scan = scans[seed, "ct"]
        assert 35 < _inside(scan, "liver").mean() < 140
        assert -930 < np.median(_inside(scan, "lung")) < -700
        assert -15 < _inside(scan, "urinary_bladder").mean() < 40
        assert abs(float(np.median(scan[0].array[:3].astype(float))) + 1000) < 60  # air beside the body


def test_pet_is_in_suv_and_follows_fdg(scans: Scans) -> None:
    for seed in (1, 2):
        scan = scans[seed, "pet"]
        liver = _inside(scan, "liver").mean()
        assert 1.2 < liver < 3.6  # EANM quality range 1.3 to 3.0, widened for noise
        assert _inside(scan, "brain").mean() > 1.5 * liver
        assert _inside(scan, "lung").mean() < 0.6 * liver
        assert scan[0].array.min() >= 0


def test_t1_contrast_has_bright_fat_and_dark_fluid(scans: Scans) -> None:
    for seed in (1, 2):
        scan = scans[seed, "mr"]
        assert _inside(scan, "urinary_bladder").mean() < 0.6 * _inside(scan, "liver").mean()
        assert _inside(scan, "spleen").mean() < _inside(scan, "liver").mean()  # T1 1328 against 809 ms
        assert np.percentile(scan[0].array.astype(float), 99) > 1.3 * _inside(scan, "liver").mean()  # fat


def test_mr_noise_in_air_is_rayleigh_distributed() -> None:
    grid = Grid((48, 48, 48), np.diag([5.0, 5.0, 5.0, 1.0]))
    air = np.zeros(grid.shape, dtype=np.uint8)
    image = magnetic_resonance(3, air, grid, Scanner())
    # Rician without signal: mean / sd = sqrt(pi / 2) / sqrt(2 - pi / 2) = 1.913
    assert image.mean() / image.std() == pytest.approx(1.913, rel=0.01)


def test_pet_resolution_is_that_of_point_spread_and_filter() -> None:
    # 1 mm across the plane: voxels as wide as the point spread would themselves change its width
    grid = Grid((24, 24, 128), np.diag([4.0, 4.0, 1.0, 1.0]))
    codes = np.full(grid.shape, TISSUES["air"].code, dtype=np.uint8)
    codes[:, :, 64] = TISSUES["grey_matter"].code  # a plane: its profile is the point spread
    # hardly any noise, so that the width is the physics alone
    scanner = dataclasses.replace(Scanner(), psf=(6.0, 6.0), pet_counts=(1e7, 1e7))
    profile = positron_emission(5, codes, grid, scanner)[6:-6, 6:-6].mean(axis=(0, 1))
    # what noise leaves far away would weigh with the square of its distance
    near = slice(64 - 20, 64 + 21)
    profile, place = profile[near], np.arange(128.0)[near]
    centre = (profile * place).sum() / profile.sum()
    width = FWHM * np.sqrt((profile * (place - centre) ** 2).sum() / profile.sum())
    # the two Gaussians (6 and 4 mm) add in quadrature
    assert width == pytest.approx(np.sqrt(6.0**2 + 4.0**2), rel=0.01)


def test_pet_noise_falls_with_counts() -> None:
    grid = Grid((32, 32, 32), np.diag([4.0, 4.0, 4.0, 1.0]))
    codes = np.full(grid.shape, TISSUES["lung"].code, dtype=np.uint8)
    spread = []
    for counts in (10.0, 1000.0):
        scanner = dataclasses.replace(Scanner(), pet_counts=(counts, counts))
        image = positron_emission(5, codes, grid, scanner)
        still = positron_emission(5, codes, grid, dataclasses.replace(scanner, pet_counts=(1e8, 1e8)))
        spread.append(float((image - still).std()))
    # Poisson: 100 times the counts, a tenth of the noise
    assert spread[0] / spread[1] == pytest.approx(10.0, rel=0.15)


def test_default_scanners_have_their_own_grids() -> None:
    scanner = Scanner()
    assert min(scanner.pet_spacing) >= 4.0
    assert scanner.psf[0] >= 5.0
    assert len({scanner.grid(m).shape for m in ("ct", "mr", "pet")}) == 3


def test_tissue_ranges_overlap_between_organs() -> None:
    organs = ["liver", "spleen", "kidney_left", "pancreas", "aorta", "esophagus", "stomach_wall"]
    for quantity in ("hu", "suv"):
        ranges = [getattr(TISSUES[name], quantity) for name in organs]
        overlapping = sum(
            abs(a[0] - b[0]) < 2 * (a[1] + b[1]) for i, a in enumerate(ranges) for b in ranges[i + 1 :]
        )
        assert overlapping >= 0.9 * len(organs) * (len(organs) - 1) / 2
