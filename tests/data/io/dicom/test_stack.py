"""Slices make a regular grid in patient space, or are refused with numbers."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from umdseg.data.io.dicom.series import find_series
from umdseg.data.io.dicom.volume import read_series
from umdseg.errors import UserError

OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, -0.8)


def read(folder):
    (series,), findings = find_series(folder)
    assert findings == []
    return read_series(series)


def by_itk(files):
    """The series as SimpleITK reads it: values (X, Y, Z) and affine in RAS+ millimetres."""
    image = sitk.ReadImage([str(f) for f in files])
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), OBLIQUE])
def test_voxels_and_places_are_those_that_simpleitk_reads(tmp_path, dicom, orientation):
    files = dicom.write_series(tmp_path, "CT", orientation=orientation, spacing=(1.5, 2.0), step=3.0)
    scan = read(tmp_path)
    array, affine = by_itk(files)
    assert scan.volume.array.dtype == np.float32
    np.testing.assert_array_equal(scan.volume.array, array)
    np.testing.assert_allclose(scan.volume.grid.affine, affine, atol=1e-6)
    assert scan.findings == ()


def test_order_follows_the_places_not_names_or_instance_numbers(tmp_path, dicom):
    # written downwards: the same patient space, first file highest
    positions = np.array([[-10.0, -20.0, 30.0 - 3 * i] for i in range(6)])
    files = dicom.write_series(tmp_path, "CT", positions=positions)
    scan = read(tmp_path)
    stored = dicom.stored_values(6, 8, 10) - 1024
    for number, place in enumerate(positions):
        # the first voxel of each file lies where its header says (LPS -> RAS)
        index = scan.volume.grid.to_index(place[None] * [-1, -1, 1])[0].round().astype(int)
        assert scan.volume.array[tuple(index)] == stored[number, 0, 0]
    heights = [scan.volume.grid.to_world(np.array([[0.0, 0, z]]))[0, 2] for z in range(6)]
    assert heights == sorted(heights)
    from pydicom import dcmread

    assert [scan.slices[dcmread(f).SOPInstanceUID] for f in files] == [5, 4, 3, 2, 1, 0]


def change_position(number, offset):
    def change(header, index):
        if index == number:
            header.ImagePositionPatient = [
                float(v) + o for v, o in zip(header.ImagePositionPatient, offset, strict=True)
            ]

    return change


def refusal(folder, *parts):
    with pytest.raises(UserError) as error:
        read(folder)
    for part in parts:
        assert part in str(error.value)
    return str(error.value)


def test_an_uneven_gap_is_refused_with_its_place(tmp_path, dicom):
    dicom.write_series(tmp_path, "CT", change=change_position(3, (0, 0, 0.9)))
    # slices at -30, -27, -24, -21 + 0.9, -18, -15
    refusal(
        tmp_path,
        "unevenly spaced",
        "3.900 mm between -24.00 and -20.10 mm",
        "2.100 mm between -20.10",
        "3.000",
    )


def test_a_missing_slice_is_refused_as_such(tmp_path, dicom):
    files = dicom.write_series(tmp_path, "CT", count=8)
    files[3].unlink()
    refusal(tmp_path, "1 slice is missing", "6.000 mm between -24.00 and -18.00 mm", "3.000 mm apart")
    files[5].unlink()
    files[4].unlink()
    refusal(tmp_path, "3 slices are missing", "12.000 mm between -24.00 and -12.00 mm")


def test_positions_rounded_to_a_tenth_of_a_millimetre_pass_with_a_warning(tmp_path, dicom):
    positions = np.array([[0.0, 0.0, round(i * 0.625, 1)] for i in range(17)])
    dicom.write_series(
        tmp_path, "CT", stored=dicom.stored_values(17, 8, 10), positions=positions, SliceThickness=None
    )
    scan = read(tmp_path)
    assert scan.volume.grid.spacing[2] == pytest.approx(0.625)
    (finding,) = scan.findings
    assert finding.level == "warn"
    assert "from 0.600 to 0.700 mm" in finding.what


def test_gaps_that_add_up_are_refused(tmp_path, dicom):
    # each gap within 1 % of 3 mm, the slices in the middle 0.5 mm from where even spacing puts them
    gaps = np.repeat([2.975, 3.025], 20)
    places = np.concatenate([[0.0], np.cumsum(gaps)])
    positions = np.stack([0 * places, 0 * places, places], axis=1)
    dicom.write_series(tmp_path, "CT", stored=dicom.stored_values(41, 4, 4), positions=positions)
    refusal(tmp_path, "unevenly spaced", "2.975 to 3.025 mm, adding up to 0.50 mm")


@pytest.mark.parametrize(
    ("tag", "values"), [("EchoTime", ("2.4", "80")), ("AcquisitionTime", ("100000", "100500"))]
)
def test_two_images_at_each_place_are_refused_with_what_tells_them_apart(tmp_path, dicom, tag, values):
    for folder, value in zip("ab", values, strict=True):
        dicom.write_series(tmp_path / folder, "MR", uid="1.2.3.9", **{tag: value})
    message = refusal(tmp_path, "each of 6 places holds 2 slices")
    if tag == "EchoTime":
        assert "EchoTime 2.4 and 80" in message
    else:  # a time of day dates the examination, so only its tag is named
        assert "Acquisition Time" in message
        assert "100000" not in message


def test_one_place_given_twice_is_refused(tmp_path, dicom):
    dicom.write_series(tmp_path, "CT", change=change_position(3, (0, 0, -3.0)))
    refusal(tmp_path, "1 of 5 places hold", "2 slices", "-24.00 mm")


def test_copies_of_a_file_count_once(tmp_path, dicom):
    files = dicom.write_series(tmp_path, "CT")
    files[2].with_name("copy").write_bytes(files[2].read_bytes())
    scan = read(tmp_path)
    assert scan.volume.grid.shape[2] == 6
    assert ["1 files are copies" in f.what for f in scan.findings] == [True]


def test_two_orientations_are_refused(tmp_path, dicom):
    dicom.write_series(tmp_path / "a", "MR", uid="1.2.3.9", count=5)
    dicom.write_series(tmp_path / "b", "MR", uid="1.2.3.9", count=3, orientation=(0, 1, 0, 0, 0, -1))
    refusal(tmp_path, "2 orientations", "3 of 8")


def test_two_shapes_or_spacings_are_refused(tmp_path, dicom):
    dicom.write_series(tmp_path / "a", "CT", uid="1.2.3.9", count=5)
    other = dicom.write_series(
        tmp_path / "b", "CT", uid="1.2.3.9", stored=dicom.stored_values(2, 4, 4), origin=(0, 0, 90)
    )
    refusal(tmp_path, "5 of 8 x 10", "2 of 4 x 4")
    for file in other:
        file.unlink()
    dicom.write_series(tmp_path / "b", "CT", uid="1.2.3.9", count=2, spacing=(1, 1), origin=(0, 0, 90))
    refusal(tmp_path, "Pixel Spacing", "from 1 x 1 to 1.5 x 2 mm")


def test_slice_thickness_unlike_the_spacing_warns_and_positions_win(tmp_path, dicom):
    dicom.write_series(tmp_path, "CT", step=3.0, SliceThickness="5")
    scan = read(tmp_path)
    assert scan.volume.grid.spacing == pytest.approx((2.0, 1.5, 3.0))
    assert [f.what for f in scan.findings] == [
        "Slice Thickness is 5 mm but slices lie 3 mm apart; the positions are used"
    ]


def test_gantry_tilt_is_refused_in_degrees(tmp_path, dicom):
    # 3 mm along the normal and 3 * tan(15 degrees) along the columns, from slice to slice
    shift = 3 * np.tan(np.radians(15))
    positions = np.array([[0.0, i * shift, i * 3.0] for i in range(6)])
    dicom.write_series(tmp_path, "CT", positions=positions)
    refusal(tmp_path, "sheared by 15.00 degrees (gantry tilt)", "4.0 mm over the volume")


def test_a_slice_shifted_sideways_is_refused(tmp_path, dicom):
    dicom.write_series(tmp_path, "CT", change=change_position(3, (2.0, 0, 0)))
    refusal(tmp_path, "shifted sideways", "2.00 mm")


def test_a_single_slice_is_no_volume(tmp_path, dicom):
    dicom.write_series(tmp_path, "CT", count=1)
    refusal(tmp_path, "single slice")


def test_direction_cosines_must_be_a_rotation(tmp_path, dicom):
    dicom.write_series(tmp_path, "CT", ImageOrientationPatient=["1", "0", "0", "0.3", "1", "0"])
    refusal(tmp_path, "Image Orientation (Patient)", "right angles")


def test_an_image_without_a_place_is_refused(tmp_path, dicom):
    dicom.write_series(tmp_path, "CT", ImagePositionPatient=None)
    refusal(tmp_path, "without Image Position (Patient) (0020,0032)")
