"""One series -> one volume in patient space, or a refusal with numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from umdseg.data.geometry import Volume
from umdseg.data.io.dicom.headers import not_a_scan
from umdseg.data.io.dicom.instance import read_header, text
from umdseg.data.io.dicom.pixels import values
from umdseg.data.io.dicom.series import Series
from umdseg.data.io.dicom.slices import Slice, slices_of
from umdseg.data.io.dicom.stack import stack
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.progress import track

AIR_HU = -1024.0


@dataclass(frozen=True)
class DicomVolume:
    """A series as one array in patient space.

    Attributes:
        volume: float32 (X, Y, Z), RAS+ millimetres, rescale applied. X runs along the image rows, Y along
            the columns, Z along their normal.
        slices: SOPInstanceUID -> z index; frames of a multi-frame object are "UID#number" (from 1).
        header: header of the lowest slice, without pixels (pydicom Dataset).
        findings: what is worth a warning (refusals are raised).
    """

    volume: Volume
    slices: Mapping[str, int]
    header: Any = field(repr=False)
    findings: tuple[Finding, ...] = ()


def read_series(series: Series) -> DicomVolume:
    """Read one CT, PET or MR series.

    Rescale slope and intercept are applied slice by slice: CT is in HU, MR in a.u., PET in its stored
    units (`umdseg.data.io.suv.read_pet` makes them SUV). Padding becomes -1024 in CT, 0 elsewhere.

    Raises:
        UserError: the series is no scan (localizer, screen capture, projection), its slices make no
            regular grid (duplicates, gaps, tilt, ...), or a file is damaged.
    """
    unfit = not_a_scan(series)
    if unfit is not None:
        raise unfit.error()
    found: list[Slice] = []
    for file in track(series.files, f"reading headers of {series.modality} series", "file"):
        found += slices_of(file)
    ordered, grid, findings = stack(found, series.where)
    header = read_header(ordered[0].file)
    findings += _check_rescale(series, ordered, header)
    array = np.empty(grid.shape, dtype=np.float32)
    padded = AIR_HU if series.modality == "CT" else 0.0
    for z, one in enumerate(track(ordered, f"reading {series.modality} series", "slice")):
        array[:, :, z] = values(one, padded).T
    return DicomVolume(Volume(array, grid), {s.key: z for z, s in enumerate(ordered)}, header, findings)


def _check_rescale(series: Series, slices: list[Slice], header: Any) -> tuple[Finding, ...]:
    if series.modality == "MR":
        return ()  # arbitrary units, with or without
    kind = text(header, "RescaleType").upper()
    if series.modality == "CT" and kind not in {"", "HU", "US", "HU_MOD"}:
        what = f"CT values are of type '{kind}' (Rescale Type (0028,1054)), not Hounsfield units"
        raise UserError(what, where=series.where, expected="a CT image in HU (no effective-Z or density map)")
    without = sum(not s.rescaled for s in slices)
    if without:
        what = f"{without} of {len(slices)} slices lack Rescale Slope or Intercept (0028,1052-3); 1, 0 taken"
        return (Finding("warn", what, series.where, "both values, as CT and PET images must have"),)
    return ()
