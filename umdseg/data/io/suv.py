"""PET to SUV by body weight: activity concentration over injected activity per gram of body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Volume
from umdseg.data.io.dicom.instance import read_header, sop_class, sop_uid, text, words
from umdseg.data.io.dicom.series import Series
from umdseg.data.io.dicom.volume import DicomVolume, read_series
from umdseg.data.io.suv_activity import factors_from_activity
from umdseg.data.io.suv_time import private
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.progress import track

# Enhanced PET and Legacy Converted Enhanced PET
ENHANCED_PET = ("1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1")
PHILIPS = "Philips PET Private Group"
# of one series, not of one image
SHARED = ("Units", "DecayCorrection", "CorrectedImage", "PatientWeight", "SUVType")


@dataclass(frozen=True)
class SuvFactor:
    """What PET values (after rescale) are multiplied with to give SUVbw.

    Attributes:
        factor: SUVbw (g/ml) per unit of the image.
        rule: the rule that gave it, in words, without dates.
        findings: what is worth a warning.
    """

    factor: float
    rule: str
    findings: tuple[Finding, ...] = ()


def suv_factor(header: Any) -> SuvFactor:
    """Factor to SUVbw of one PET image.

    The rules are those of DICOM PS3.3 C.8.9 and of QIBA's vendor-neutral pseudo-code: Units BQML with
    DecayCorrection START, ADMIN or NONE; GML (already SUV); CNTS with Philips' private factors.

    Args:
        header: pydicom Dataset of one image.

    Raises:
        UserError: the SUV cannot be known; the message names the tag.
    """
    factors, rule, findings = _factors([header], "PET header")
    return SuvFactor(float(factors[0]), rule, findings)


def read_pet(series: Series) -> DicomVolume:
    """Read a PET series in SUVbw (g/ml).

    Returns:
        As `read_series`; the first of its findings (level pass) says by which rule.

    Raises:
        UserError: as `read_series`, or the SUV cannot be known.
    """
    scan = read_series(series)
    headers = {}
    for file in track(series.files, "reading headers for SUV", "file"):
        header = read_header(file)
        headers[sop_uid(header) or str(file)] = header
    factors, rule, findings = _factors(list(headers.values()), series.where)
    values = np.asarray(scan.volume.array, dtype=np.float32)
    if np.ptp(factors) == 0:
        array = values * np.float32(factors[0])
    else:
        by_key = dict(zip(headers, factors, strict=True))
        along = [by_key[key] for key in sorted(scan.slices, key=scan.slices.__getitem__)]
        array = values * np.array(along, dtype=np.float32)
    findings = (Finding("pass", f"SUV by body weight: {rule}", series.where), *scan.findings, *findings)
    return replace(scan, volume=Volume(array, scan.volume.grid), findings=findings)


def _factors(headers: Sequence[Any], where: str) -> tuple[NDArray[np.float64], str, tuple[Finding, ...]]:
    """One factor per header, the rule, warnings."""
    first = headers[0]
    if sop_class(first) in ENHANCED_PET:
        what = "SUV of Enhanced PET objects is not supported"
        raise UserError(what, where=where, expected="classic PET images; export or convert the series so")
    for keyword in SHARED:
        kinds = {text(header, keyword) for header in headers}
        if len(kinds) > 1:
            raise UserError(
                f"{keyword} differs between images of one series", where=where, expected="one value"
            )
    units = text(first, "Units").upper()
    findings = _corrections(first, units, where)
    one = np.ones(len(headers))
    if units == "GML":
        kind = text(first, "SUVType").upper() or "BW"
        if kind != "BW":
            what = f"image is SUV of type {kind} (SUV Type (0054,1006)), not by body weight"
            raise UserError(what, where=where, expected="SUV Type BW, or Units BQML")
        return one, "already SUV (Units GML), not scaled", findings
    if units == "BQML":
        factors, rule, more = factors_from_activity(headers, where)
        return factors, f"Units BQML, {rule}", findings + more
    if units == "CNTS":
        to_suv, to_activity = (_private_factors(headers, element) for element in (0x00, 0x09))
        if (to_suv > 0).all():
            return to_suv, "Units CNTS, Philips SUV factor (7053,1000)", findings
        if (to_activity > 0).all():
            factors, rule, more = factors_from_activity(headers, where)
            rule = f"Units CNTS, Philips Bq/ml factor (7053,1009), {rule}"
            return factors * to_activity, rule, findings + more
        raise UserError(
            "image is in counts, and no factor to activity or SUV is given",
            where=where,
            expected="Philips' private factors (7053,1000) or (7053,1009), or Units BQML or GML",
        )
    what = f"Units (0054,1001) are '{units}'" if units else "Units (0054,1001) are missing"
    raise UserError(what, where=where, expected="BQML, GML, or CNTS with Philips' private factors")


def _corrections(header: Any, units: str, where: str) -> tuple[Finding, ...]:
    done = words(header, "CorrectedImage")
    if not done:
        what = (
            "Corrected Image (0028,0051) is missing: corrections for attenuation and decay taken for granted"
        )
        return (Finding("warn", what, where, "ATTN and DECY"),)
    if "ATTN" not in done:
        what = "image is not corrected for attenuation (Corrected Image (0028,0051) lacks ATTN)"
        raise UserError(what, where=where, expected="the attenuation-corrected series")
    corrected = text(header, "DecayCorrection").upper() != "NONE"
    if units == "GML" or ("DECY" in done) == corrected:
        return ()
    said = text(header, "DecayCorrection") or "missing"
    named = "names" if "DECY" in done else "lacks"
    what = f"Decay Correction (0054,1102) is {said} but Corrected Image (0028,0051) {named} DECY"
    raise UserError(what, where=where, expected="START or ADMIN with DECY, NONE without")


def _private_factors(headers: Sequence[Any], element: int) -> NDArray[np.float64]:
    """Philips' factor in each header, 0 where it is absent or no number."""
    factors = []
    for header in headers:
        try:
            factors.append(float(private(header, 0x7053, PHILIPS, element) or 0))
        except ValueError:
            factors.append(0.0)
    array = np.array(factors)
    return np.where(np.isfinite(array), array, 0.0)
