"""Confidence intervals by resampling patients."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_SUBJECTS = 3


@dataclass(frozen=True)
class Interval:
    """A confidence interval, or the reason why there is none (or only a plainer one).

    Attributes:
        low: lower end, None when undefined.
        high: upper end, None when undefined.
        reason: why the interval is undefined or not BCa.
    """

    low: float | None
    high: float | None
    reason: str | None = None

    def as_list(self) -> list[float] | None:
        """[low, high], or None."""
        return None if self.low is None or self.high is None else [self.low, self.high]

    def excludes(self, value: float) -> bool:
        """Whether the interval is defined and lies wholly on one side of `value`."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


def mean_interval(
    values: ArrayLike,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    *,
    groups: ArrayLike | None = None,
) -> Interval:
    """Interval of the mean of one value per subject.

    Args:
        values: (n_subjects,).
        n_resamples: bootstrap resamples.
        seed: seed of the resampling.
        confidence: coverage aimed at.
        groups: (n_subjects,) whose each subject is; subjects of one patient are resampled together. None =
            each is a patient of their own.
    """
    column = np.asarray(values, dtype=float)
    return _interval(column, np.ones_like(column), groups, n_resamples, seed, confidence)


def ratio_interval(
    numerator: ArrayLike,
    denominator: ArrayLike,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    *,
    groups: ArrayLike | None = None,
) -> Interval:
    """Interval of mean(numerator) / mean(denominator), both (n_subjects,), resampled together.

    Args:
        numerator: (n_subjects,).
        denominator: (n_subjects,).
        n_resamples: bootstrap resamples.
        seed: seed of the resampling.
        confidence: coverage aimed at.
        groups: as in `mean_interval`.
    """
    columns = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    return _interval(*columns, groups, n_resamples, seed, confidence)


def _interval(
    above: NDArray[np.float64],
    below: NDArray[np.float64],
    groups: ArrayLike | None,
    n_resamples: int,
    seed: int,
    confidence: float,
) -> Interval:
    """BCa (Efron, JASA 1987) of sum(above) / sum(below); percentile interval where BCa has no value.

    What is drawn with replacement, and left out one by one for the acceleration, is the patient with all
    subjects (the cluster bootstrap: Davison and Hinkley, Bootstrap Methods, 1997, section 3.8).

    With few patients every bootstrap interval is somewhat narrow: in simulations (normal and skewed
    scores, 400 repetitions) a nominal 95 % interval covered the truth for 5 subjects in 85 %, for 8
    in 89 %, for 15 in 91 % and for 30 in 93 % of the cases.
    """
    from scipy.stats import bootstrap

    counts, data = _summed((above, below), groups)
    if (few := _too_few(counts)) is not None:
        return Interval(None, None, few)
    if all(_constant(column / counts) for column in data):
        # rounding noise must not make a difference of 0 look like one that excludes 0
        value = round(float(_ratio(data[0], data[1])), 12)
        return Interval(value, value, f"all {_unit(counts)}s have the same value")
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = bootstrap(
                data,
                _ratio,
                paired=True,
                vectorized=True,
                n_resamples=n_resamples,
                confidence_level=confidence,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite([found.low, found.high]).all():
            reason = None if method == "BCa" else "percentile interval, BCa is undefined for these values"
            return Interval(float(found.low), float(found.high), reason)
    return Interval(None, None, "the bootstrap distribution is degenerate")


def _summed(
    columns: tuple[NDArray[np.float64], ...], groups: ArrayLike | None
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], ...]]:
    """Subjects per patient, and each column summed per patient, patients in the order of their names."""
    if groups is None:
        return np.ones(len(columns[0])), columns
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    if len(place) != len(columns[0]):
        raise ValueError(f"{len(place)} groups for {len(columns[0])} subjects")
    ones = np.ones(len(place))
    counts, *sums = (np.bincount(place, column, len(names)).astype(float) for column in (ones, *columns))
    return counts, tuple(sums)


def _too_few(counts: NDArray[np.float64]) -> str | None:
    if len(counts) >= MIN_SUBJECTS:
        return None
    held = "" if _unit(counts) == "subject" else f" with {int(counts.sum())} subjects"
    return f"an interval needs {MIN_SUBJECTS} {_unit(counts)}s, not {len(counts)}{held}"


def _unit(counts: NDArray[np.float64]) -> str:
    """What is resampled, in words: patients only where one has several subjects."""
    return "patient" if (counts > 1).any() else "subject"


def _constant(values: NDArray[np.float64]) -> bool:
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64], axis: int = -1) -> Any:
    return above.mean(axis=axis) / below.mean(axis=axis)
