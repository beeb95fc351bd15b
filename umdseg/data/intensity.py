"""Whether the values of a scan can be what its units say: HU, SUV or the magnitude of an MR signal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Volume
from umdseg.data.verdict import Finding, Level
from umdseg.errors import UserError
from umdseg.seeds import generator
from umdseg.vocabulary import Scan, Subject

# thresholds were set on the 58 real scans of shared/data (soft-tissue sarcoma CT, PET, MR; TotalSegmentator
# and spine crops), with room to spare; their extremes stand beside each number
_SAMPLES = 200_000
# HU of what every body part is made of: fat -100, water 0, muscle 50, enhanced blood up to 300
_SOFT_HU = (-150.0, 150.0)
_SOFT_LEAST = 0.01  # real scans: 0.35 and more
# distance of the 0.1 and 99.9 percentiles; real scans: 1480 HU and more, noise alone gives 60
_CT_RANGE_LEAST = 20.0
# the rescale intercept of CT is -1024 (or -1000): without it water lies here
_SHIFTED_HU = (874.0, 1174.0)
_SHIFTED_LEAST = 0.10
_HU_MOST = 32_767.0  # the extended CT scale ends at 30,710; 16-bit numbers read without sign lie above
# a 70 kg patient with all activity in 1 % of the body has SUV 100; real: 99th percentile 8.7, median 0.5
_SUV_P99, _SUV_MEDIAN = 100.0, 20.0
_SUV_NEGATIVE, _SUV_NEGATIVE_SHARE = -0.1, 0.01  # real scans: none
_MR_NEGATIVE_WARN, _MR_NEGATIVE_REFUSE = 0.20, 0.90  # real scans: 0.013
_SATURATED = 0.005  # share of voxels with the largest value; real scans: 0.00003
_SAME = 0.995  # share of voxels with one and the same value; real scans: 0.35

_told: set[tuple[str, str, str]] = set()


@dataclass(frozen=True)
class _Values:
    """What the rules look at."""

    sample: NDArray[np.float32]
    low: float
    median: float
    high: float

    @classmethod
    def of(cls, array: NDArray[Any]) -> _Values:
        flat = np.asarray(array).ravel()
        # extremes of all voxels, everything else of a random subset, the same every time (equal steps could
        # hit the same columns of the array again and again)
        many = flat.size > _SAMPLES
        sample = flat[generator(0, "intensity").integers(0, flat.size, _SAMPLES)] if many else flat
        return cls(sample.astype(np.float32), float(flat.min()), float(np.median(sample)), float(flat.max()))

    def share(self, low: float, high: float) -> float:
        return float(((self.sample >= low) & (self.sample <= high)).mean())

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.sample, q))


def verdicts(volume: Volume, modality: str, units: str, where: str) -> tuple[Finding, ...]:
    """What is wrong with the values of a scan; nothing when they can be right.

    Cropped fields of view need hold no air. What numbers alone cannot tell is not claimed: PET in kBq/ml
    of a cold region looks like SUV, MR has no unit.

    Args:
        volume: (X, Y, Z) as read from the file.
        modality: ct, pet or mr.
        units: HU, SUV or a.u., as stated for the scan.
        where: file and subject, for the finding.
    """
    values = _Values.of(volume.array)
    told: list[tuple[Level, str, str]] = _general(values)
    if not told:
        told = {"ct": _ct, "pet": _pet, "mr": _mr}[modality](values)
    if not any(level == "refuse" for level, _, _ in told):
        told += _saturated(values)
    return tuple(
        Finding(level, f"{modality} in {units}: {what}", where, right) for level, what, right in told
    )


def check_intensity(volume: Volume, scan: Scan, subject: Subject, policy: str) -> tuple[Finding, ...]:
    """Verdicts of one scan, told once per process on standard error.

    Args:
        volume: as read.
        scan: its modality, units and file.
        subject: whose scan.
        policy: `refuse` stops at values that cannot be right; `warn` only tells.

    Raises:
        UserError: the values cannot be right, and the policy is `refuse`.
    """
    findings = verdicts(volume, scan.modality, scan.units, f"{scan.image} (subject {subject.id})")
    heed(findings, scan, subject, policy)
    return findings


def heed(findings: Iterable[Finding], scan: Scan, subject: Subject, policy: str) -> None:
    """Act on verdicts of one scan, made now or kept from an earlier run; as `check_intensity`.

    Raises:
        UserError: the values cannot be right, and the policy is `refuse`.
    """
    where = f"{scan.image} (subject {subject.id})"
    for finding in findings:
        if finding.level == "refuse" and policy == "refuse":
            expected = f"{finding.expected}; data.bad_intensity=warn goes on nevertheless"
            raise UserError(finding.what, where=where, expected=expected)
        key = (subject.id, scan.modality, finding.what)
        if key not in _told:
            _told.add(key)
            print(f"warning: {finding.what} ({where}); expected {finding.expected}", file=sys.stderr)


def _general(v: _Values) -> list[tuple[Level, str, str]]:
    values, counts = np.unique(v.sample, return_counts=True)
    same = float(counts.max()) / v.sample.size
    if v.low == v.high or same > _SAME:
        what = f"{same:.1%} of the voxels are {values[counts.argmax()]:g}"
        return [("refuse", what, "an image, not an empty volume or a mask")]
    return []


def _ct(v: _Values) -> list[tuple[Level, str, str]]:
    right = "Hounsfield units: air -1000, water 0 (stored value x rescale slope + intercept)"
    width = v.percentile(99.9) - v.percentile(0.1)
    if width < _CT_RANGE_LEAST:
        return [("refuse", f"values lie within {v.low:g} and {v.high:g}: rescaled (0-1 or z-score)?", right)]
    if v.high > _HU_MOST:
        return [("refuse", f"values up to {v.high:g}: 16-bit numbers read without their sign?", right)]
    if 0 <= v.low < 1 and 254 <= v.high <= 255:
        return [("refuse", f"values lie within {v.low:g} and {v.high:g}: rescaled to 0-255?", right)]
    if v.low >= 0 and v.share(*_SHIFTED_HU) > _SHIFTED_LEAST:
        near = f"{v.share(*_SHIFTED_HU):.0%} of the values lie near 1024"
        what = f"no value is negative and {near}: rescale intercept missing?"
        return [("refuse", what, right)]
    soft = v.share(*_SOFT_HU)
    if soft < _SOFT_LEAST:
        what = f"{soft:.1%} of the voxels are soft tissue (-150 to 150), median {v.median:g}"
        return [("refuse", what, right)]
    return []


def _pet(v: _Values) -> list[tuple[Level, str, str]]:
    right = "SUV by body weight: most of the body between 0 and 10"
    negative = float((v.sample < _SUV_NEGATIVE).mean())
    if negative > _SUV_NEGATIVE_SHARE:
        what = f"{negative:.1%} of the voxels are below {_SUV_NEGATIVE:g}: z-score, or another image?"
        return [("refuse", what, right)]
    top = v.percentile(99)
    body = v.sample[v.sample > 0.01 * top]
    median = float(np.median(body)) if body.size else 0.0
    if top > _SUV_P99 or median > _SUV_MEDIAN:
        what = f"99th percentile {top:.4g}, median of the body {median:.4g}: Bq/ml or counts?"
        return [("refuse", what, right)]
    for most in (1.0, 255.0):
        if v.low == 0 and abs(v.high - most) < 1e-6 * most:
            return [("refuse", f"values reach from 0 to exactly {most:g}: rescaled?", right)]
    if v.high < 1:
        return [("warn", f"no voxel exceeds SUV {v.high:.3g}", right)]
    return []


def _mr(v: _Values) -> list[tuple[Level, str, str]]:
    right = "signal magnitude (0 or more, arbitrary scale)"
    negative = float((v.sample < 0).mean())
    if negative > _MR_NEGATIVE_REFUSE:
        return [("refuse", f"{negative:.0%} of the voxels are negative: sign or offset wrong?", right)]
    if negative > _MR_NEGATIVE_WARN:
        return [("warn", f"{negative:.0%} of the voxels are negative: z-score or phase image?", right)]
    return []


def _saturated(v: _Values) -> list[tuple[Level, str, str]]:
    share = float((v.sample >= v.high).mean())
    if share <= _SATURATED:
        return []
    what = f"{share:.1%} of the voxels have the largest value {v.high:g}: saturated or clipped"
    return [("warn", what, "values that are not cut off")]
