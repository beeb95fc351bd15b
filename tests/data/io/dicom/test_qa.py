"""Values that no body has are noticed; those of real scans are not."""

from __future__ import annotations

import numpy as np
import pytest

from umdseg.data.io.dicom.qa import verdicts
from umdseg.data.io.dicom.series import find_series
from umdseg.data.io.dicom.volume import read_series
from umdseg.data.io.suv import read_pet


def judge(folder):
    (series,) = [s for s in find_series(folder)[0] if s.modality in ("CT", "MR", "PT")]
    scan = (read_pet if series.modality == "PT" else read_series)(series)
    findings = verdicts(series, scan)
    assert findings[: len(scan.findings)] == scan.findings
    return findings[len(scan.findings) :]


@pytest.mark.parametrize(
    "folder",
    [
        "sts_raw_dicom/STS_001/FDG_PET/image",
        "sts_pet_ct_mr/dicom/STS_002/PET",
        "sts_pet_ct_mr/dicom/STS_002/CT",
        "sts_pet_ct_mr/dicom/STS_002/MR_T1",
        "totalsegmentator/example_ct_dicom",
    ],
)
def test_real_scans_are_plausible(shared_data, folder):
    assert judge(shared_data / folder) == ()


def ct_values():
    """Air, fat, soft tissue and bone in HU, (slice, row, column)."""
    stored = np.full((4, 12, 12), -1000, np.int16)
    stored[:, 2:10, 2:10] = -100
    stored[:, 3:9, 3:9] = 40
    stored[:, 5, 5] = 800
    return stored


@pytest.mark.parametrize(
    ("slope", "intercept", "cut", "level", "said"),
    [
        (1, 0, 0, None, ""),
        (1, 1024, 0, "refuse", "no value below 0 HU (from 24 to 1824)"),  # the intercept was lost
        (1 / 1800, 1000 / 1800, 0, "refuse", "no value below 0 HU (from 0 to 1)"),  # scaled to 0 ... 1
        (1 / 1400, -0.2857, 0, "refuse", "values from -1 to 0.2857 only"),  # scaled to -1 ... 1
        (10, 0, 0, "refuse", "between -200 and 300 HU"),
        (1, 0, 2, "warn", "no air (lowest value -100 HU)"),  # cropped inside the body
    ],
)
def test_ct_that_is_not_in_hounsfield_units(tmp_path, dicom, slope, intercept, cut, level, said):
    stored = ct_values()[:, cut : 12 - cut, cut : 12 - cut]
    dicom.write_series(tmp_path, "CT", stored=stored, slope=slope, intercept=intercept)
    findings = judge(tmp_path)
    assert [f.level for f in findings] == ([level] if level else [])
    assert all(said in f.what for f in findings)


def test_padding_does_not_hide_a_lost_intercept(tmp_path, dicom):
    stored = ct_values() + np.int16(1024)
    stored[:, 0] = -2000  # declared padding, so -1024 HU after reading
    dicom.write_series(tmp_path, "CT", stored=stored, intercept=0, PixelPaddingValue=-2000)
    (finding,) = judge(tmp_path)
    assert (finding.level, "no value below 0 HU (from 24" in finding.what) == ("refuse", True)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (1, []),
        (3, [("warn", "3.0 times the injected activity")]),
        (30, [("warn", "median SUV of the body is 29.8"), ("refuse", "30.0 times")]),
        (0.02, [("warn", "median SUV of the body is 0.0199")]),
        (1e-4, [("refuse", "median SUV of the body")]),
    ],
)
def test_activity_is_conserved(tmp_path, dicom, times, expected):
    # 1100 voxels of 64 ml are 70.4 l: what is left of 350 MBq makes SUV 70 / 70.4 there
    stored = np.zeros((16, 16, 16), np.int16)
    stored[3:13, 3:13, 3:14] = 10000
    left = 350e6 * 0.5 ** (3600 / 6586.2)
    slope = times * left / (1100 * 64) / 10000
    dicom.write_series(tmp_path, "PT", stored=stored, spacing=(40, 40), step=40, slope=slope)
    findings = judge(tmp_path)
    assert [f.level for f in findings] == [level for level, _ in expected]
    for finding, (_, said) in zip(findings, expected, strict=True):
        assert said in finding.what


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_an_empty_image_is_refused(tmp_path, dicom, modality):
    dicom.write_series(tmp_path, modality, stored=np.zeros((4, 8, 8), np.int16))
    (finding,) = judge(tmp_path)
    assert finding.level == "refuse"
    assert finding.what.startswith("every voxel is")
