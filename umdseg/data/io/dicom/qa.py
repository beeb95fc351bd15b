"""Quality verdicts of one series: are its values what its modality measures?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umdseg.data.io.dicom.instance import numbers
from umdseg.data.io.dicom.series import Series
from umdseg.data.io.dicom.volume import AIR_HU, DicomVolume
from umdseg.data.verdict import Finding, Level

AIR = (-1100.0, -900.0)
TISSUE = (-200.0, 300.0)
NARROW = 100.0  # HU; fat and muscle alone span more
# median SUV of a body: about 0.5 to 1 by conservation of activity; bounds allow for crops
SUV_UNUSUAL = (0.05, 10.0)
SUV_WRONG = (0.005, 100.0)
# of the injected activity; voxels outside the body and rounding add some per cent
MOST_ACTIVITY = 1.5
IMPOSSIBLE_ACTIVITY = 5.0


def verdicts(series: Series, volume: DicomVolume) -> tuple[Finding, ...]:
    """All findings of a series that could be read.

    Args:
        series: the series.
        volume: its volume, CT in HU, PET in SUV (from `read_pet`), MR in a.u.

    Returns:
        `volume.findings`, then what is implausible about the values: an empty image; CT without air or
        soft tissue; PET with a median SUV no body has, or more activity than was injected.
    """
    array = np.asarray(volume.volume.array, dtype=np.float32)
    where = series.where
    low, high = float(array.min()), float(array.max())
    if low == high:
        empty = Finding("refuse", f"every voxel is {low:g}", where, "an image with some contrast")
        return (*volume.findings, empty)
    plausible: tuple[Finding, ...] = ()
    if series.modality == "CT":
        plausible = _ct(array, where)
    elif series.modality == "PT":
        plausible = _pet(array, volume, where)
    return (*volume.findings, *plausible)


def _ct(array: NDArray[np.float32], where: str) -> tuple[Finding, ...]:
    seen = array[array != AIR_HU]  # what was padding says nothing
    low, high = float(seen.min()), float(seen.max())
    if low >= 0:
        what = f"CT has no value below 0 HU (from {low:g} to {high:g})"
        return (Finding("refuse", what, where, "air near -1000 HU; was the rescale intercept lost?"),)
    tissue = float(((seen >= TISSUE[0]) & (seen <= TISSUE[1])).mean())
    if tissue < 0.01:
        what = f"CT has {tissue:.1%} of its voxels between {TISSUE[0]:g} and {TISSUE[1]:g} HU"
        return (Finding("refuse", what, where, "soft tissue; are the values HU?"),)
    if high - low < NARROW:
        what = f"CT has values from {low:.4g} to {high:.4g} only"
        return (Finding("refuse", what, where, "fat near -100 and muscle near 40 HU; are the values HU?"),)
    air = float(((array >= AIR[0]) & (array <= AIR[1])).mean())
    if air < 0.001:
        what = f"CT has no air (lowest value {low:g} HU), so its scale could not be checked"
        return (
            Finding("warn", what, where, "air near -1000 HU, unless the scan is cropped inside the body"),
        )
    return ()


def _pet(array: NDArray[np.float32], volume: DicomVolume, where: str) -> tuple[Finding, ...]:
    # the body stands out from the air around it; a tenth of the mean lies between them
    body = array[array > 0.1 * float(array[array > 0].mean())] if (array > 0).any() else array[:0]
    median = float(np.median(body)) if len(body) else 0.0
    findings = []
    level: Level
    if not SUV_UNUSUAL[0] <= median <= SUV_UNUSUAL[1]:
        level = "warn" if SUV_WRONG[0] <= median <= SUV_WRONG[1] else "refuse"
        what = f"median SUV of the body is {median:.3g}"
        findings.append(Finding(level, what, where, "about 0.5 to 1; check units, dose, weight, times"))
    weight = numbers(volume.header, "PatientWeight")
    if weight and weight[0] > 0:
        # SUV * ml = g of body at mean activity (1 ml = 1 g)
        share = float(array.sum(dtype=np.float64)) * volume.volume.grid.voxel_ml / (weight[0] * 1000)
        if share > MOST_ACTIVITY:
            level = "warn" if share <= IMPOSSIBLE_ACTIVITY else "refuse"
            what = f"image holds {share:.1f} times the injected activity"
            findings.append(
                Finding(level, what, where, "at most all of it; check units, dose, weight, times")
            )
    return tuple(findings)
