"""The intensity classifier is the best single-voxel rule: checked by trying all rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from umdseg.data.dataset import PairedDataset
from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import write_volume
from umdseg.evaluation.baselines import threshold_mask
from umdseg.evaluation.intensity import best_bins, fit_intensity, intensity_bins
from umdseg.vocabulary import Scan, Subject


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
    # no uptake, no threshold
    assert not threshold_mask(np.zeros((3, 3, 3)), 0.41).any()
    assert np.argwhere(threshold_mask(suv, 0.41, (1, 1, 1))).tolist() == [[1, 1, 1], [2, 2, 2]]


def test_a_click_below_the_threshold_takes_the_nearest_component_in_millimetres() -> None:
    suv = np.zeros((8, 8, 8))
    suv[1, 4, 4], suv[4, 4, 6] = 10, 9
    assert np.argwhere(threshold_mask(suv, 0.41, (4, 4, 4))).tolist() == [[4, 4, 6]]
    assert np.argwhere(threshold_mask(suv, 0.41, (4, 4, 4), (1, 1, 5))).tolist() == [[1, 4, 4]]


STRUCTURES = {"liver": 3, "tumour": 1}
# HU, label, voxels in fours: two intensities of the tumour, the brighter one shared with background
SEEN = [(-500, 0, 60), (20, 1, 30), (80, 1, 30), (80, 0, 30), (160, 3, 40)]


def scanned(folder, name: str, parts: list[tuple[int, int, int]], **more) -> Subject:
    values, labels = np.concatenate([[[value, label]] * 4 * count for value, label, count in parts]).T
    grid = Grid((len(values) // 4, 2, 2), np.eye(4))
    for kind, array in (("image", values.astype(np.float32)), ("label", labels.astype(np.int16))):
        write_volume(Volume(array.reshape(grid.shape), grid), folder / f"{name}_{kind}.nii.gz")
    scan = Scan(folder / f"{name}_image.nii.gz", "ct", "HU", folder / f"{name}_label.nii.gz")
    return Subject(name, {"ct": scan}, split="train", **more)


def positive(subjects: list[Subject], structure: str) -> list[int]:
    """Which of the intensities of SEEN are called positive."""
    data = PairedDataset("made", tuple(subjects), STRUCTURES)
    fitted = fit_intensity(data, subjects, ("ct",), progress=False)
    values = sorted({value for value, _, _ in SEEN})
    bins = intensity_bins(np.array(values, dtype=np.float32).reshape(-1, 1, 1), "ct")
    found = fitted.predict(bins, "ct", structure)
    return [] if found is None else [v for v, hit in zip(values, found.ravel(), strict=True) if hit]


def test_what_labels_do_not_tell_about_is_no_background(tmp_path) -> None:
    full = scanned(tmp_path, "a", SEEN)
    # Dice with both intensities 2 * 60 / (60 + 90) = 0.80, with the pure one alone 2 * 30 / (60 + 30) = 0.67
    assert positive([full], "tumour") == [20, 80]
    # a tumour's 200 voxels that nobody outlined: as background they would make the brighter one not worth it
    blank = [(80, 0, 200), (160, 3, 20), (-500, 0, 20)]
    assert positive([full, scanned(tmp_path, "b", blank)], "tumour") == [20]
    partly = scanned(tmp_path, "c", blank, annotated=("liver",))
    assert positive([full, partly], "tumour") == [20, 80]
    assert positive([partly], "tumour") == []


def test_what_labels_tell_about_is_learned_from_partial_ones_too(tmp_path) -> None:
    # the liver's second intensity is seen in the partial subject only
    partly = scanned(tmp_path, "b", [(20, 3, 90), (-500, 0, 100)], annotated=("liver",))
    assert positive([scanned(tmp_path, "a", SEEN)], "liver") == [160]
    assert positive([scanned(tmp_path, "a", SEEN), partly], "liver") == [20, 160]
