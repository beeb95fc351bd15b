"""Confidence intervals by resampling subjects."""

from __future__ import annotations

import warnings
from collections.abc import Callable
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
    values: ArrayLike, n_resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Interval of the mean of one value per subject.

    Args:
        values: (n_subjects,).
        n_resamples: bootstrap resamples.
        seed: seed of the resampling.
        confidence: coverage aimed at.
    """
    return _interval((np.asarray(values, dtype=float),), _mean, n_resamples, seed, confidence)


def ratio_interval(
    numerator: ArrayLike,
    denominator: ArrayLike,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Interval of mean(numerator) / mean(denominator), both (n_subjects,), resampled together."""
    data = (np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float))
    return _interval(data, _ratio, n_resamples, seed, confidence)


def _interval(
    data: tuple[NDArray[np.float64], ...],
    statistic: Callable[..., Any],
    n_resamples: int,
    seed: int,
    confidence: float,
) -> Interval:
    """BCa (Efron, JASA 1987) over subjects; the percentile interval where BCa has no value.

    With few subjects every bootstrap interval is somewhat narrow: in simulations (normal and skewed
    scores, 400 repetitions) a nominal 95 % interval covered the truth for 5 subjects in 85 %, for 8
    in 89 %, for 15 in 91 % and for 30 in 93 % of the cases.
    """
    from scipy.stats import bootstrap

    count = len(data[0])
    if count < MIN_SUBJECTS:
        return Interval(None, None, f"an interval needs {MIN_SUBJECTS} subjects, not {count}")
    value = float(statistic(*data))
    if all(np.ptp(column) <= 1e-12 * max(1.0, float(np.abs(column).max())) for column in data):
        # rounding noise must not make a difference of 0 look like one that excludes 0
        value = round(value, 12)
        return Interval(value, value, "all subjects have the same value")
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = bootstrap(
                data,
                statistic,
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


def _mean(values: NDArray[np.float64], axis: int = -1) -> Any:
    return values.mean(axis=axis)


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64], axis: int = -1) -> Any:
    return numerator.mean(axis=axis) / denominator.mean(axis=axis)
