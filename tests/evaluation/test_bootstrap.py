"""Intervals against simulations with a known truth."""

from __future__ import annotations

import itertools
from statistics import NormalDist

import numpy as np
import pytest

from umdseg.evaluation.bootstrap import mean_interval, ratio_interval


@pytest.mark.parametrize(
    ("draw", "truth"), [(lambda r: r.normal(0.3, 0.1, 20), 0.3), (lambda r: r.beta(2, 6, 20), 0.25)]
)
def test_intervals_of_a_mean_cover_the_truth_about_as_often_as_they_say(draw, truth) -> None:
    rng = np.random.default_rng(0)
    found = [mean_interval(draw(rng), 400, i) for i in range(200)]
    covered = np.mean([i.low <= truth <= i.high for i in found])
    # 200 repetitions: a true coverage of 0.93 stays within these limits in 999 of 1000 cases
    assert 0.87 <= covered <= 0.985


def test_intervals_of_a_ratio_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    hits = []
    for i in range(150):
        opened = rng.normal(0.4, 0.08, 20)
        closed = 0.6 * opened + rng.normal(0, 0.05, 20)
        found = ratio_interval(closed, opened, 400, i)
        hits.append(found.low <= 0.6 <= found.high)
    assert 0.86 <= np.mean(hits) <= 0.99


def test_interval_of_a_mean_is_bca_worked_out_over_all_resamples() -> None:
    """Efron (JASA 1987) by its formulas, with every one of the 6^6 resamples instead of random ones."""
    values = np.array([0.10, 0.12, 0.15, 0.21, 0.34, 0.70])
    means = np.sort([np.mean(draw) for draw in itertools.product(values, repeat=6)])
    normal, theta = NormalDist(), values.mean()
    bias = normal.inv_cdf(((means < theta - 1e-12).mean() + (means <= theta + 1e-12).mean()) / 2)
    left_out = np.array([np.delete(values, i).mean() for i in range(6)])
    pull = left_out.mean() - left_out
    acceleration = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    ends = []
    for share in (0.025, 0.975):
        z = bias + normal.inv_cdf(share)
        ends.append(np.quantile(means, normal.cdf(bias + z / (1 - acceleration * z))))
    found = mean_interval(values, n_resamples=20000)
    assert found.as_list() == pytest.approx(ends, abs=0.01)
    # the values are skewed enough to tell BCa from the percentile interval
    assert ends[1] - np.quantile(means, 0.975) > 0.03


def test_more_subjects_give_a_narrower_interval() -> None:
    rng = np.random.default_rng(2)
    few, many = (mean_interval(rng.normal(0.3, 0.1, n), 500) for n in (8, 80))
    assert many.high - many.low < 0.6 * (few.high - few.low)


def test_no_interval_without_three_subjects() -> None:
    found = mean_interval([0.1, 0.2])
    assert found.as_list() is None
    assert "not 2" in found.reason


def test_equal_values_give_a_point_and_say_so() -> None:
    found = mean_interval([0.2, 0.2, 0.2])
    assert found.as_list() == [0.2, 0.2]
    assert "same value" in found.reason


def test_where_bca_is_undefined_the_percentile_interval_stands_in() -> None:
    # every jackknife value of three of these is alike, so the acceleration is 0/0 or the bias infinite
    for values in ([0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0, 0.0]):
        found = mean_interval(values, 300)
        assert found.low is not None
        assert found.low <= np.mean(values) <= found.high


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(3).normal(size=10)
    assert mean_interval(values, 500, seed=4) == mean_interval(values, 500, seed=4)
    assert mean_interval(values, 500, seed=4) != mean_interval(values, 500, seed=5)


def test_interval_over_patients_is_bca_worked_out_over_all_resamples_of_them() -> None:
    """The same formulas with every one of the 5^5 draws of patients, each with all subjects."""
    values = {"p": [0.10], "q": [0.15, 0.12], "r": [0.21], "s": [0.34, 0.40, 0.31], "t": [0.70]}
    groups = [name for name, own in values.items() for _ in own]
    column = np.concatenate([*values.values()])

    def mean(names) -> float:
        return float(np.concatenate([values[name] for name in names]).mean())

    means = np.sort([mean(draw) for draw in itertools.product(values, repeat=5)])
    normal, theta = NormalDist(), float(column.mean())
    bias = normal.inv_cdf(((means < theta - 1e-12).mean() + (means <= theta + 1e-12).mean()) / 2)
    left_out = np.array([mean([name for name in values if name != out]) for out in values])
    pull = left_out.mean() - left_out
    acceleration = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    ends = []
    for share in (0.025, 0.975):
        z = bias + normal.inv_cdf(share)
        ends.append(np.quantile(means, normal.cdf(bias + z / (1 - acceleration * z))))
    # in any order of the subjects
    order = np.random.default_rng(0).permutation(len(column))
    found = mean_interval(column[order], 20000, groups=np.array(groups)[order])
    assert found.as_list() == pytest.approx(ends, abs=0.012)
    assert mean_interval(column, 20000).as_list() != pytest.approx(ends, abs=0.03)


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_of_every_subject_add_nothing_where_their_patient_is_known(copies: int) -> None:
    rng = np.random.default_rng(5)
    values, opened = rng.beta(2, 6, 9), rng.normal(0.5, 0.1, 9)
    people = [f"p{i}" for i in range(9)]
    groups = np.repeat(people, copies)
    one = mean_interval(values)
    assert mean_interval(values, groups=people) == one
    # draws whose mean is the sample's own are ties but for rounding: BCa's bias counts them on either side
    assert mean_interval(np.repeat(values, copies), groups=groups).as_list() == pytest.approx(
        one.as_list(), abs=0.002
    )
    alone = mean_interval(np.repeat(values, copies))
    # taken for people of their own they narrow the interval by about the root of their number
    assert (alone.high - alone.low) / (one.high - one.low) == pytest.approx(copies**-0.5, rel=0.15)
    ratio = ratio_interval(values, opened)
    again = ratio_interval(np.repeat(values, copies), np.repeat(opened, copies), groups=groups)
    assert again.as_list() == pytest.approx(ratio.as_list(), abs=0.005)


def test_intervals_over_patients_cover_the_truth_where_those_over_subjects_do_not() -> None:
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(20), 4)
    hits = {"patients": 0, "subjects": 0}
    for i in range(150):
        # what a patient's four scans share spreads as much as the scans do
        values = np.repeat(rng.normal(0.3, 0.1, 20), 4) + rng.normal(0, 0.1, 80)
        by = {
            "patients": mean_interval(values, 400, i, groups=groups),
            "subjects": mean_interval(values, 400, i),
        }
        for name, found in by.items():
            hits[name] += found.low <= 0.3 <= found.high
    assert 0.86 <= hits["patients"] / 150 <= 0.985
    assert hits["subjects"] / 150 < 0.86


def test_two_patients_are_too_few_whatever_the_number_of_their_subjects() -> None:
    found = mean_interval([0.1, 0.2, 0.3, 0.4], groups=["a", "a", "b", "b"])
    assert found.as_list() is None
    assert "3 patients, not 2 with 4 subjects" in found.reason
    level = mean_interval([0.1, 0.3, 0.2, 0.2], groups=["a", "a", "b", "c"])
    assert level.as_list() == pytest.approx([0.2, 0.2])
    assert "all patients" in level.reason
