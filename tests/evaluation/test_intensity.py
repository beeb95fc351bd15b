"""The intensity classifier is the best single-voxel rule: checked by trying all rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from umdseg.evaluation.baselines import threshold_mask
from umdseg.evaluation.intensity import best_bins, intensity_bins


@pytest.mark.parametrize("seed", range(5))
def test_no_other_set_of_bins_has_a_better_dice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    total = rng.integers(1, 50, 9).astype(float)
    inside = np.floor(total * rng.uniform(size=9))
    chosen = best_bins(inside, total)

    def dice(bins: np.ndarray) -> float:
        return 2 * inside[bins].sum() / (total[bins].sum() + inside.sum())

    every = (np.array(bits, bool) for bits in itertools.product([0, 1], repeat=9) if any(bits))
    assert dice(chosen) == pytest.approx(max(dice(bins) for bins in every))


def test_mr_intensities_do_not_depend_on_the_scanners_scale() -> None:
    image = np.random.default_rng(0).uniform(0, 100, (10, 10, 10))
    np.testing.assert_array_equal(intensity_bins(image, "mr"), intensity_bins(image * 37.5, "mr"))
    assert (intensity_bins(image, "pet") != intensity_bins(image * 2, "pet")).any()


def test_threshold_keeps_the_clicked_component_with_its_diagonal_neighbours() -> None:
    suv = np.zeros((8, 8, 8))
    suv[1, 1, 1], suv[2, 2, 2], suv[6, 6, 6], suv[4, 4, 4] = 10, 5, 9, 2
    assert threshold_mask(suv, 0.41).sum() == 3
    assert np.argwhere(threshold_mask(suv, 0.41, (1, 1, 1))).tolist() == [[1, 1, 1], [2, 2, 2]]


def test_a_click_below_the_threshold_takes_the_nearest_component_in_millimetres() -> None:
    suv = np.zeros((8, 8, 8))
    suv[1, 4, 4], suv[4, 4, 6] = 10, 9
    assert np.argwhere(threshold_mask(suv, 0.41, (4, 4, 4))).tolist() == [[4, 4, 6]]
    assert np.argwhere(threshold_mask(suv, 0.41, (4, 4, 4), (1, 1, 5))).tolist() == [[1, 4, 4]]
