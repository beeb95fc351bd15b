"""The phantoms' anatomy against published organ volumes and the places organs have in people."""

from __future__ import annotations

import numpy as np
import pytest

from umdseg.anatomy import UMD13
from umdseg.data.geometry import Grid
from umdseg.data.phantom.body import FIELD_OF_VIEW, Anatomy, Breathing, grid_over
from umdseg.data.phantom.subject import STRUCTURES, labels

# millilitres: wide adult ranges around the reference values of ICRP Publication 89
VOLUMES = {
    "liver": (900, 2400),
    "kidney_left": (70, 330),
    "kidney_right": (70, 330),
    "brain": (1000, 2000),
    "heart": (250, 1000),
    "spleen": (50, 450),
    "aorta": (100, 450),
    "lung": (2000, 6500),
    "colon": (300, 1500),
    "urinary_bladder": (50, 700),
    "pancreas": (40, 180),
    "esophagus": (25, 130),
    "stomach": (100, 900),
}
SEEDS = (1, 2, 3)


def _grid(step: float = 5.0) -> Grid:
    return grid_over(FIELD_OF_VIEW, (step, step, step))


@pytest.fixture(scope="module")
def maps() -> dict[int, np.ndarray]:
    return {seed: labels(Anatomy(seed).paint(_grid())) for seed in SEEDS}


def _centre(label: np.ndarray, structure: str, grid: Grid) -> np.ndarray:
    voxels = np.argwhere(label == STRUCTURES[structure]).astype(float)
    return np.asarray(grid.to_world(voxels).mean(axis=0))


def test_all_organs_have_adult_volumes(maps: dict[int, np.ndarray]) -> None:
    for seed, label in maps.items():
        for name, (low, high) in VOLUMES.items():
            volume = float((label == STRUCTURES[name]).sum()) * _grid().voxel_ml
            assert low <= volume <= high, f"seed {seed}: {name} has {volume:.0f} ml"


def test_organs_lie_where_they_do_in_people(maps: dict[int, np.ndarray]) -> None:
    grid = _grid()
    for label in maps.values():
        at = {name: _centre(label, name, grid) for name in UMD13}
        # RAS+: +x right, +y anterior, +z superior
        assert min(at["liver"][0], at["kidney_right"][0]) > 20
        assert max(at["spleen"][0], at["kidney_left"][0]) < -20
        assert at["stomach"][0] < 0
        assert at["heart"][0] < 0 < at["heart"][1]
        assert max(at["kidney_left"][1], at["kidney_right"][1]) < 0
        order = ["urinary_bladder", "colon", "pancreas", "heart", "brain"]
        heights = [at[name][2] for name in order]
        assert heights == sorted(heights)
        assert at["lung"][2] > at["liver"][2] > at["urinary_bladder"][2]


def test_subjects_differ_and_a_seed_is_one_subject(maps: dict[int, np.ndarray]) -> None:
    assert np.array_equal(labels(Anatomy(1).paint(_grid())), maps[1])
    spread = [float((maps[s] == STRUCTURES["liver"]).sum()) for s in SEEDS]
    assert len(set(spread)) == len(SEEDS)
    both = (maps[1] > 0) & (maps[2] > 0)
    assert (maps[1][both] != maps[2][both]).mean() > 0.02


def test_one_anatomy_on_every_grid(maps: dict[int, np.ndarray]) -> None:
    other = grid_over(FIELD_OF_VIEW, (4.07, 4.07, 6.0))
    label = labels(Anatomy(1).paint(other))
    for name in ("liver", "brain", "kidney_left", "urinary_bladder"):
        distance = _centre(label, name, other) - _centre(maps[1], name, _grid())
        assert np.abs(distance).max() < 1.5, name


def test_breathing_lifts_the_liver_and_spares_head_and_bladder(maps: dict[int, np.ndarray]) -> None:
    grid = _grid()
    moved = labels(Anatomy(1).paint(grid, Breathing(12.0)))
    lifted = _centre(moved, "liver", grid)[2] - _centre(maps[1], "liver", grid)[2]
    assert 3.0 < lifted <= 12.5
    for name in ("brain", "urinary_bladder"):
        assert abs(_centre(moved, name, grid)[2] - _centre(maps[1], name, grid)[2]) < 0.5
