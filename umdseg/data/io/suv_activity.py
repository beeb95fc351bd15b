"""Activity concentration to SUV: dose, weight, half-life and decay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.io.dicom.instance import numbers, text
from umdseg.data.io.suv_time import elapsed, mean_moment, reference
from umdseg.data.verdict import Finding
from umdseg.errors import UserError

WEIGHT_KG = (0.5, 400.0)
DOSE_BQ = (1e6, 1e10)
# mass, element, name, half-life in seconds (NuDat 3.0, National Nuclear Data Center)
NUCLIDES = (
    ("18", "F", "FLUORINE", 6586.0),
    ("11", "C", "CARBON", 1222.0),
    ("13", "N", "NITROGEN", 597.9),
    ("15", "O", "OXYGEN", 122.2),
    ("68", "GA", "GALLIUM", 4062.6),
    ("82", "RB", "RUBIDIUM", 75.45),
    ("64", "CU", "COPPER", 45723.0),
    ("89", "ZR", "ZIRCONIUM", 282276.0),
    ("124", "I", "IODINE", 360806.0),
)
Factors = tuple[NDArray[np.float64], str, tuple[Finding, ...]]


def factors_from_activity(headers: Sequence[Any], where: str) -> Factors:
    """Factors to SUVbw of images in Bq/ml: weight (g) over what is left of the dose (Bq).

    What is left, is left at the moment that the image's activity is stated for: the injection (Decay
    Correction ADMIN), the start of the scan (START) or the frame's own moment (NONE).

    Args:
        headers: one pydicom Dataset per image of a series.
        where: named in messages.

    Returns:
        One factor per header, the rule in words, warnings.

    Raises:
        UserError: weight, dose, half-life or a time is missing or absurd; the message names its tag.
    """
    weight = _within(headers[0], "PatientWeight", "Patient's Weight (0010,1030)", WEIGHT_KG, "kg", where)
    given = _radiopharmaceutical(headers, where)
    dose = _within(
        given, "RadionuclideTotalDose", "Radionuclide Total Dose (0018,1074)", DOSE_BQ, "Bq", where
    )
    correction = text(headers[0], "DecayCorrection").upper()
    if correction == "ADMIN":
        return np.full(len(headers), weight * 1000 / dose), "decay corrected to the injection (ADMIN)", ()
    half_life = _half_life(given, where)
    findings: tuple[Finding, ...] = ()
    if correction == "START":
        scan, rule = reference(headers, half_life, where)
        seconds, findings = elapsed(given, scan, half_life, where)
        waited = [seconds] * len(headers)
        rule = f"decay corrected to the start of the scan ({rule}), {seconds / 60:.1f} min after injection"
    elif correction == "NONE":
        waited, findings = _uncorrected(headers, given, half_life, where)
        minutes = f"{min(waited) / 60:.1f} to {max(waited) / 60:.1f} min"
        rule = f"not decay corrected, frames {minutes} after injection"
    else:
        said = f"'{correction}'" if correction else "missing"
        raise UserError(
            f"Decay Correction (0054,1102) is {said}", where=where, expected="START, ADMIN or NONE"
        )
    return np.array([weight * 1000 / (dose * 2 ** (-w / half_life)) for w in waited]), rule, findings


def _uncorrected(
    headers: Sequence[Any], given: Any, half_life: float, where: str
) -> tuple[list[float], tuple[Finding, ...]]:
    waited: list[float] = []
    findings: list[Finding] = []
    for header in headers:
        moment = mean_moment(header, half_life)
        if moment is None:
            raise UserError(
                "image is not decay corrected and the time of its frame is unknown",
                where=where,
                expected="Acquisition Date, Time (0008,0022/0032) and Actual Frame Duration (0018,1242)",
            )
        seconds, more = elapsed(given, moment, half_life, where)
        waited.append(seconds)
        findings += more
    return waited, tuple(dict.fromkeys(findings))


def _radiopharmaceutical(headers: Sequence[Any], where: str) -> Any:
    items = headers[0].get("RadiopharmaceuticalInformationSequence") or []
    if len(items) != 1:
        what = f"Radiopharmaceutical Information Sequence (0054,0016) has {len(items)} items"
        raise UserError(what, where=where, expected="one tracer with dose, half-life and time of injection")
    return items[0]


def _half_life(given: Any, where: str) -> float:
    value = numbers(given, "RadionuclideHalfLife")
    tag = "Radionuclide Half Life (0018,1075)"
    if len(value) != 1 or not value[0] > 0:
        what = f"{tag} is {value[0]:g} s" if value else f"{tag} is missing"
        raise UserError(what, where=where, expected="half-life in seconds (6586 s for F-18)")
    said = " ".join(
        text(code, k)
        for code in given.get("RadionuclideCodeSequence") or []
        for k in ("CodeMeaning", "CodeValue")
    )
    name, known = _nuclide(said)
    if name and abs(value[0] / known - 1) > 0.02:
        what = f"{tag} is {value[0]:g} s, but {name} has {known:g} s"
        raise UserError(what, where=where, expected="half-life in seconds")
    return value[0]


def _nuclide(said: str) -> tuple[str, float]:
    """The nuclide that a code's words name ("18F", "^18^Fluorine", "F-18") and its half-life; "" if none."""
    for mass, element, name, half_life in NUCLIDES:
        names = f"({element}|{name})"
        if re.search(rf"(?<!\d){mass}\W*{names}\b|\b{names}\W*{mass}\b", said.upper()):
            return f"{element.title()}-{mass}", half_life
    return "", 0.0


def _within(header: Any, keyword: str, tag: str, bounds: tuple[float, float], unit: str, where: str) -> float:
    value = numbers(header, keyword)
    expected = f"{bounds[0]:g} to {bounds[1]:g} {unit}"
    if len(value) != 1:
        raise UserError(f"{tag} is missing", where=where, expected=expected)
    if not bounds[0] <= value[0] <= bounds[1]:
        raise UserError(
            f"{tag} is {value[0]:g} {unit}", where=where, expected=f"{expected} (is it another unit?)"
        )
    return value[0]
