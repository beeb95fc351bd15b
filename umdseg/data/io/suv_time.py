"""When the tracer was given, and the moment a PET image's activity is decay corrected to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

from umdseg.data.io.dicom.instance import numbers, quiet, text
from umdseg.data.verdict import Finding
from umdseg.errors import UserError

DAY_S = 86400.0
MOST_HALF_LIVES = 10.0
# longer-lived tracers are scanned days after injection: a time of day does not say which
SHORT_LIVED_S = 6 * 3600.0
LONGEST_SCAN = timedelta(hours=2)
# de-identified headers may have lost every date; times of day still tell the minutes between two of them
NO_DATE = date(1900, 1, 1)
START_TAGS = "Radiopharmaceutical Start DateTime (0018,1078) or Start Time (0018,1072)"


def elapsed(given: Any, scan: datetime, half_life: float, where: str) -> tuple[float, tuple[Finding, ...]]:
    """Seconds from the injection to `scan`.

    Start DateTime counts where it lies 0 to 10 half-lives before the scan; else (absent, or with a date
    shifted by de-identification) the time of day, on the scan's day or, later than the scan, on the day
    before.

    Args:
        given: item of Radiopharmaceutical Information Sequence.
        scan: moment of the scan.
        half_life: seconds.
        where: named in messages.

    Raises:
        UserError: no start, two starts that differ, or none that lies at most 10 half-lives before the scan.
    """
    full, clock = (
        _datetime(text(given, "RadiopharmaceuticalStartDateTime")),
        _time(text(given, "RadiopharmaceuticalStartTime")),
    )
    if full is None and clock is None:
        raise UserError("time of injection is unknown", where=where, expected=START_TAGS)
    if full is not None and clock is not None:
        apart = abs((datetime.combine(full.date(), clock) - full).total_seconds())
        apart = min(apart, DAY_S - apart)
        if apart > 60:
            what = f"Start DateTime (0018,1078) and Start Time (0018,1072) differ by {apart:.0f} s"
            raise UserError(what, where=where, expected="one time of injection")
    most = MOST_HALF_LIVES * half_life
    if full is not None and 0 <= (scan - full).total_seconds() <= most:
        return (scan - full).total_seconds(), ()
    if half_life > SHORT_LIVED_S:
        raise UserError(
            f"the day of injection is unknown, and a half-life of {half_life / 3600:.1f} h spans days",
            where=where,
            expected="Radiopharmaceutical Start DateTime (0018,1078) before the scan",
        )
    findings = []
    start = datetime.combine(scan.date(), clock if clock is not None else full.time())  # type: ignore[union-attr]
    if start > scan:
        start -= timedelta(days=1)
        findings.append(
            Finding("warn", "injection taken to be before midnight, on the day before the scan", where)
        )
    if full is not None:
        # by how much is not said: where the scan has lost its date, that would give the date away
        what = "date of Start DateTime (0018,1078) is not that of the scan; its time of day was used"
        findings.append(Finding("warn", what, where))
    seconds = (scan - start).total_seconds()
    if seconds > most:
        halves = seconds / half_life
        what = f"injection would lie {seconds / 3600:.1f} h ({halves:.0f} half-lives) before the scan"
        raise UserError(what, where=where, expected=f"{START_TAGS} shortly before the scan")
    return seconds, tuple(findings)


def reference(headers: Sequence[Any], half_life: float, where: str) -> tuple[datetime, str]:
    """The moment that DecayCorrection START refers to, and the rule it was found by.

    The order is that of QIBA's vendor-neutral SUV pseudo-code: Series Time unless it is
    later than the acquisition (then it is that of a reprocessing); GE's private scan time; back from each
    frame by its Frame Reference Time (DICOM PS3.3 C.8.9.4); the earliest acquisition.

    Raises:
        UserError: no time is known, Series Time is hours before the first acquisition, or the frames
            contradict each other by more than 1 % of activity.
    """
    series = _moment(headers[0], "Series")
    acquired = [m for m in (_moment(h, "Acquisition") for h in headers) if m is not None]
    earliest = min(acquired, default=None)
    if series is not None and (earliest is None or series <= earliest):
        if earliest is not None and earliest - series > LONGEST_SCAN:
            hours = (earliest - series).total_seconds() / 3600
            what = f"Series Time (0008,0031) lies {hours:.1f} h before the first Acquisition Time (0008,0032)"
            raise UserError(what, where=where, expected="the start of the scan in both")
        return series, "Series Time"
    stamp = _datetime(private(headers[0], 0x0009, "GEMS_PETD_01", 0x0D))
    if stamp is not None:
        return stamp, "GE private scan time (0009,100D)"
    if earliest is None:
        raise UserError(
            "time of the scan is unknown",
            where=where,
            expected="Series Date and Time (0008,0021/0031) or Acquisition Date and Time (0008,0022/0032)",
        )
    starts = [_back(h, half_life) for h in headers]
    known = [s for s in starts if s is not None]
    if len(known) < len(starts) or "GE" in text(headers[0], "Manufacturer").upper().split():
        return earliest, "earliest Acquisition Time (Series Time is later)"
    spread = (max(known) - min(known)).total_seconds()
    if spread * math.log(2) / half_life > 0.01:
        what = f"frames disagree by {spread:.0f} s about the moment they are decay corrected to"
        raise UserError(
            what, where=where, expected="one Acquisition Time minus Frame Reference Time (0054,1300)"
        )
    return min(known), "Acquisition Time less Frame Reference Time (Series Time is later)"


def mean_moment(header: Any, half_life: float) -> datetime | None:
    """The moment within a frame at which its activity is the frame's mean.

    t = ln(x / (1 - exp(-x))) / lambda after its start, x = lambda * duration (QIBA pseudo-code).
    """
    start, duration = _moment(header, "Acquisition"), numbers(header, "ActualFrameDuration")
    if start is None or not duration or duration[0] <= 0:
        return None
    constant = math.log(2) / half_life
    x = constant * duration[0] / 1000
    return start + timedelta(seconds=math.log(x / -math.expm1(-x)) / constant)


def private(header: Any, group: int, creator: str, element: int) -> str:
    """A private value as text, "" if absent; without its creator element (lost in export) at block 10."""
    try:
        value = header.private_block(group, creator)[element].value
    except KeyError:
        tag = (group, 0x1000 + element)
        if (group, 0x0010) in header or tag not in header:
            return ""
        value = header[tag].value
    return (value.decode("ascii", "ignore") if isinstance(value, bytes) else str(value)).strip(" \0")


def _back(header: Any, half_life: float) -> datetime | None:
    middle, offset = mean_moment(header, half_life), numbers(header, "FrameReferenceTime")
    if middle is None or not offset or offset[0] <= 0:
        return None
    return middle - timedelta(seconds=offset[0] / 1000)


def _moment(header: Any, kind: str) -> datetime | None:
    clock = _time(text(header, f"{kind}Time"))
    if clock is None:
        return _datetime(text(header, f"{kind}DateTime"))
    days = (text(header, f"{k}Date") for k in (kind, "Series", "Acquisition", "Study"))
    day = next((d for d in map(_date, days) if d is not None), NO_DATE)
    return datetime.combine(day, clock)


def _date(value: str) -> date | None:
    found = _parse("DA", value)
    return date(found.year, found.month, found.day) if found else None


def _time(value: str) -> time | None:
    found = _parse("TM", value)
    return time(found.hour, found.minute, found.second, found.microsecond) if found is not None else None


def _datetime(value: str) -> datetime | None:
    # without a time of day it is no moment
    found = _parse("DT", value) if len(value) >= 12 else None
    # a zone is left out, as all times of one scan are local to the scanner
    return datetime.combine(date(found.year, found.month, found.day), found.time()) if found else None


def _parse(kind: str, value: str) -> Any:
    from pydicom import valuerep

    if not value:
        return None
    try:
        with quiet():
            return getattr(valuerep, kind)(value)
    except (ValueError, TypeError):
        return None
