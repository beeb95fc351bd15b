"""DICOM-SEG written by highdicom from known masks comes back voxel for voxel."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from umdseg.data.geometry import Grid
from umdseg.data.io.dicom.regions import inspect, read_regions
from umdseg.data.io.dicom.seg import read_segments
from umdseg.data.io.dicom.series import find_series
from umdseg.data.io.dicom.volume import read_series
from umdseg.errors import UserError

SHAPE = (9, 8, 10)  # slice, row, column, as `write_series` makes them with count=9


def masks() -> dict[str, np.ndarray]:
    """Two blobs without symmetry; the first skips slices, both leave the ends empty."""
    liver, kidney = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    liver[1, 2:5, 3:6] = liver[4, 1:3, 1:2] = liver[6, 5:8, 7:10] = True
    kidney[3, 6, 6:8] = kidney[4, 6, 6] = True
    return {"Liver": liver, "Left Kidney": kidney}


@pytest.fixture
def series(tmp_path, dicom):
    return dicom.write_series(tmp_path / "ct", "CT", count=9)


def grid_of(folder) -> Grid:
    return read_series(find_series(folder)[0][0]).volume.grid


def on_grid(segment, grid):
    mask, findings = segment.mask(grid)
    array = np.zeros(grid.shape, dtype=bool)
    if mask is not None:
        array[mask.box] = mask.array
    return array, findings


def expected(mask):
    """(slice, row, column) as (X, Y, Z) of the scan: X along the rows, Y along the columns."""
    return mask.transpose(2, 1, 0)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("order", ["up", "down", "shuffled"])
def test_segments_come_back_exactly(tmp_path, series, dicom_labels, kind, order):
    index = {
        "up": np.arange(9),
        "down": np.arange(9)[::-1],
        "shuffled": np.random.default_rng(1).permutation(9),
    }
    use = index[order]
    given = {name: mask[use] for name, mask in masks().items()}
    path = dicom_labels.write_seg(tmp_path / "seg.dcm", [series[i] for i in use], given, kind=kind)
    grid = grid_of(tmp_path / "ct")
    read = read_segments(path, grid)
    assert [segment.names[0] for segment in read] == ["Liver", "Left Kidney"]
    for segment, mask in zip(read, masks().values(), strict=True):
        array, findings = on_grid(segment, grid)
        assert (array == expected(mask)).all()
        assert findings == ()


def test_frames_of_a_part_of_the_scan_come_back_exactly(tmp_path, series, dicom_labels):
    given = {name: mask[3:7] for name, mask in masks().items()}
    path = dicom_labels.write_seg(tmp_path / "seg.dcm", series[3:7], given)
    grid = grid_of(tmp_path / "ct")
    for segment, mask in zip(read_segments(path, grid), masks().values(), strict=True):
        truth = mask.copy()
        truth[:3] = truth[7:] = False
        assert (on_grid(segment, grid)[0] == expected(truth)).all()


def test_an_object_that_does_not_say_how_far_apart_its_frames_are(tmp_path, series, dicom_labels):
    liver = np.zeros(SHAPE, bool)
    liver[0, 1:3, 1:3] = liver[2, 1:3, 1:3] = liver[5, 1:3, 1:3] = True
    path = dicom_labels.write_seg(tmp_path / "seg.dcm", series, {"Liver": liver})
    stripped = pydicom.dcmread(path)
    assert stripped.NumberOfFrames == 3
    measures = stripped.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    del measures.SpacingBetweenSlices
    stripped.save_as(path)
    grid = grid_of(tmp_path / "ct")
    array, findings = on_grid(read_segments(path, grid)[0], grid)
    assert (array == expected(liver)).all()
    assert findings == ()


def test_a_single_frame(tmp_path, series, dicom_labels):
    liver = np.zeros(SHAPE, bool)
    liver[7, 2:5, 3:6] = True
    path = dicom_labels.write_seg(tmp_path / "seg.dcm", series, {"Liver": liver})
    grid = grid_of(tmp_path / "ct")
    assert (on_grid(read_segments(path, grid)[0], grid)[0] == expected(liver)).all()


@pytest.mark.parametrize(
    "orientation", [(0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0), (0.8, 0.6, 0, -0.6, 0.8, 0)]
)
def test_scans_of_any_direction(tmp_path, dicom, dicom_labels, orientation):
    files = dicom.write_series(tmp_path / "mr", "MR", count=9, orientation=orientation)
    path = dicom_labels.write_seg(tmp_path / "seg.dcm", files, masks())
    grid = grid_of(tmp_path / "mr")
    for segment, mask in zip(read_segments(path, grid), masks().values(), strict=True):
        assert (on_grid(segment, grid)[0] == expected(mask)).all()


def test_half_a_voxel_counts_in_a_fractional_segment(tmp_path, series, dicom_labels):
    fractions = np.random.default_rng(2).choice([0.0, 0.2, 0.45, 0.55, 0.9, 1.0], size=SHAPE)
    path = dicom_labels.write_seg(
        tmp_path / "seg.dcm", series, {"Liver": fractions}, kind="FRACTIONAL", max_fractional_value=200
    )
    grid = grid_of(tmp_path / "ct")
    assert (on_grid(read_segments(path, grid)[0], grid)[0] == expected(fractions >= 0.5)).all()


def test_a_segment_on_a_grid_of_its_own_goes_to_the_nearest_voxels_and_says_so(tmp_path, dicom, dicom_labels):
    # the scan has twice the columns and half the spacing of what was segmented
    coarse = dicom.write_series(tmp_path / "coarse", "CT", count=9, spacing=(1.5, 2.0))
    fine = np.zeros((9, 8, 20), np.int16)
    dicom.write_series(tmp_path / "fine", "CT", stored=fine, spacing=(1.5, 1.0), origin=(-10.5, -20.0, -30.0))
    path = dicom_labels.write_seg(tmp_path / "seg.dcm", coarse, masks())
    grid = grid_of(tmp_path / "fine")
    for segment, mask in zip(read_segments(path, grid), masks().values(), strict=True):
        array, findings = on_grid(segment, grid)
        assert (array == expected(mask).repeat(2, axis=0)).all()
        assert "(2.00 × 1.50 × 3.00 mm, scan 1.00 × 1.50 × 3.00 mm" in findings[0].what
        assert findings[0].level == "warn"


def test_voxels_outside_the_scan_are_told(tmp_path, series, dicom, dicom_labels):
    path = dicom_labels.write_seg(tmp_path / "seg.dcm", series, masks())
    dicom.write_series(tmp_path / "short", "CT", count=5)
    grid = grid_of(tmp_path / "short")
    liver = masks()["Liver"]
    array, findings = on_grid(read_segments(path, grid)[0], grid)
    assert (array == expected(liver[:5])).all()
    outside = int(liver[5:].sum())
    assert [f.what for f in findings] == [
        f"{outside} of {liver.sum()} voxels of the segment lie outside the scan"
    ]


def test_codes_name_a_segment_after_its_label(tmp_path, series, dicom_labels):
    path = dicom_labels.write_seg(
        tmp_path / "seg.dcm",
        series,
        masks(),
        types={"Liver": codes.SCT.Liver, "Left Kidney": codes.SCT.Kidney},
    )
    coded = pydicom.dcmread(path)
    left = pydicom.Dataset()
    left.CodeValue, left.CodingSchemeDesignator, left.CodeMeaning = "7771000", "SCT", "Left"
    kind = coded.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0]
    kind.SegmentedPropertyTypeModifierCodeSequence = [left]
    coded.SegmentSequence[1].SegmentLabel = "Segment 2"
    coded.save_as(path)
    told = inspect(path)
    assert told.names == (("Liver",), ("Segment 2", "Left Kidney", "Kidney"))
    assert told.kind == "SEG"
    assert len(told.series) == 1
    assert len(told.instances) == 9
    assert [region.names for region in read_regions(path, "SEG", grid_of(tmp_path / "ct"))] == list(
        told.names
    )


def test_a_damaged_object_is_refused_with_its_file(tmp_path, series, dicom_labels):
    path = dicom_labels.write_seg(tmp_path / "seg.dcm", series, masks())
    broken = pydicom.dcmread(path)
    del broken.SegmentSequence
    broken.save_as(path)
    with pytest.raises(UserError, match="segmentation object cannot be read") as error:
        read_segments(path, grid_of(tmp_path / "ct"))
    assert "seg.dcm" in str(error.value)
