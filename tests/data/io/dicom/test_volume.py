"""Values of a series: real scans against their NIfTI and against SimpleITK, synthetic ones by hand."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless

from umdseg.data.io.dicom.series import find_series
from umdseg.data.io.dicom.volume import read_series
from umdseg.errors import UserError


def read(folder):
    (series,) = [s for s in find_series(folder)[0] if s.modality in ("CT", "MR", "PT")]
    return read_series(series)


@pytest.mark.parametrize("kind", ["CT", "MR_T1"])
def test_real_ct_and_mr_equal_their_nifti(shared_data, kind):
    scan = read(shared_data / "sts_pet_ct_mr" / "dicom" / "STS_002" / kind / "image")
    image = nib.load(shared_data / "sts_pet_ct_mr" / "nifti" / "STS_002" / f"{kind}_image.nii.gz")
    # NIfTI keeps its affine in single precision
    np.testing.assert_allclose(scan.volume.grid.affine, image.affine, atol=1e-4)
    # both hold integers, so nothing is left to rounding
    np.testing.assert_array_equal(scan.volume.array, np.asarray(image.dataobj))


def test_jpeg_2000_ct_is_read_as_gdcm_reads_it_and_aligns_with_its_organs(shared_data):
    folder = shared_data / "totalsegmentator"
    scan = read(folder / "example_ct_dicom")
    grid = scan.volume.grid
    for file in (folder / "example_ct_dicom").iterdir():
        one = sitk.ReadImage(str(file))
        place = np.array([one.GetOrigin()]) * [-1, -1, 1]
        (index,) = grid.to_index(place).round(6)
        assert index[:2].tolist() == [0, 0]
        np.testing.assert_array_equal(
            scan.volume.array[:, :, int(index[2])], sitk.GetArrayFromImage(one)[0].T
        )

    # their SOPInstanceUIDs are empty; the file meta information has them
    assert sorted(scan.slices.values()) == list(range(20))
    assert all(key.startswith("1.3.12.") for key in scan.slices)

    label = nib.load(folder / "example_seg_dicom.nii.gz")
    names = json.loads((folder / "class_ids.json").read_text())["total"]
    at = {name: int(number) for number, name in names.items()}
    values = np.asarray(label.dataobj)

    def median(organ):
        index = np.argwhere(values == at[organ])
        ours = grid.to_index(nib.affines.apply_affine(label.affine, index))
        np.testing.assert_allclose(ours, ours.round(), atol=1e-4)
        return np.median(scan.volume.array[tuple(ours.round().astype(int).T)])

    # a portal-venous scan: gas, muscle, contrast-enhanced liver, aorta, bone
    organs = [median(o) for o in ("colon", "autochthon_left", "liver", "aorta", "vertebrae_T12")]
    assert organs == sorted(organs)
    assert organs[0] < -300
    assert 0 < organs[1] < 70
    assert 80 < organs[2] < 110
    assert 120 < organs[3] < 200


def test_rescale_is_that_of_each_slice(tmp_path, dicom):
    def change(header, number):
        header.RescaleSlope, header.RescaleIntercept = str(0.5 + number), str(10 * number)

    dicom.write_series(tmp_path, "PT", count=3, change=change)
    stored = dicom.stored_values(3, 8, 10)
    expected = np.stack([stored[i] * (0.5 + i) + 10 * i for i in range(3)]).T
    np.testing.assert_array_equal(read(tmp_path).volume.array, expected)


def test_ct_without_rescale_warns_and_density_maps_are_refused(tmp_path, dicom):
    dicom.write_series(tmp_path / "a", "CT", count=3, RescaleIntercept=None)
    scan = read(tmp_path / "a")
    assert scan.volume.array.min() == 0
    assert [f.what[:50] for f in scan.findings] == ["3 of 3 slices lack Rescale Slope or Intercept (002"]
    dicom.write_series(tmp_path / "b", "CT", count=3, RescaleType="Z_EFF")
    with pytest.raises(UserError, match="Z_EFF"):
        read(tmp_path / "b")


@pytest.mark.parametrize(
    ("modality", "tags", "air"),
    [
        ("CT", {"PixelPaddingValue": -2000}, -1024),
        ("CT", {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1990}, -1024),
        ("MR", {"PixelPaddingValue": -2000}, 0),
    ],
)
def test_padding_becomes_air(tmp_path, dicom, modality, tags, air):
    stored = np.full((3, 4, 4), 100, np.int16)
    stored[:, 0] = -2000
    stored[:, 1] = -1995
    dicom.write_series(tmp_path, modality, stored=stored, slope=1, intercept=0, **tags)
    array = read(tmp_path).volume.array
    assert np.unique(array[:, 0]).tolist() == [air]
    assert np.unique(array[:, 1]).tolist() == [air if "PixelPaddingRangeLimit" in tags else -1995]
    assert np.unique(array[:, 2:]).tolist() == [100]


def test_padding_written_as_unsigned_is_understood(tmp_path, dicom):
    def change(header, number):
        from pydicom.dataelem import DataElement

        header[0x0028, 0x0120] = DataElement(0x00280120, "US", 2**16 - 2000)

    dicom.write_series(tmp_path, "CT", stored=np.full((3, 4, 4), -2000, np.int16), change=change)
    assert np.unique(read(tmp_path).volume.array).tolist() == [-1024]


def test_bits_above_those_stored_are_not_pixels(tmp_path, dicom):
    # overlays once lay in the unused bits 12 to 15 (DICOM PS3.5 8.1.1)
    stored = np.full((3, 4, 4), 100 | 0x1000, np.int16)
    dicom.write_series(
        tmp_path, "CT", stored=stored, intercept=0, BitsStored=12, HighBit=11, PixelRepresentation=0
    )
    assert np.unique(read(tmp_path).volume.array).tolist() == [100]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "RGB"])
def test_inverted_and_colour_images_are_refused(tmp_path, dicom, photometric):
    dicom.write_series(tmp_path, "MR", PhotometricInterpretation=photometric)
    with pytest.raises(UserError, match=photometric):
        read(tmp_path)


def compress(file):
    header = dcmread(file)
    header.compress(JPEG2000Lossless)
    header.save_as(file)


def test_a_missing_decoder_names_the_package(tmp_path, dicom, monkeypatch):
    for file in dicom.write_series(tmp_path, "CT", stored=dicom.stored_values(3, 64, 64)):
        compress(file)
    assert read(tmp_path).volume.array.min() == -1024
    from pydicom.pixels.decoders import JPEG2000LosslessDecoder

    monkeypatch.setattr(JPEG2000LosslessDecoder, "_available", {})
    with pytest.raises(UserError, match="pylibjpeg-openjpeg") as error:
        read(tmp_path)
    assert "JPEG 2000" in str(error.value)


def test_damaged_compressed_pixels_are_refused_by_name(tmp_path, dicom):
    files = dicom.write_series(tmp_path, "CT", stored=dicom.stored_values(3, 64, 64))
    for file in files:
        compress(file)
    whole = bytearray(files[2].read_bytes())
    start = whole.rindex(b"\xff\x4f\xff\x51")  # JPEG 2000 start of codestream
    whole[start : start + 4] = b"\0\0\0\0"
    files[2].write_bytes(bytes(whole))
    with pytest.raises(UserError, match="cannot be decoded") as error:
        read(tmp_path)
    assert str(files[2]) in str(error.value)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_multi_frame_objects_equal_the_single_frames_they_were_made_of(tmp_path, dicom, modality):
    from highdicom import legacy

    files = dicom.write_series(tmp_path / "single", modality, **_needed(modality))
    kinds = {
        "CT": legacy.LegacyConvertedEnhancedCTImage,
        "MR": legacy.LegacyConvertedEnhancedMRImage,
        "PT": legacy.LegacyConvertedEnhancedPETImage,
    }
    whole = kinds[modality]([dcmread(f) for f in files], "1.2.3.5", 1, "1.2.3.6", 1)
    (tmp_path / "multi").mkdir()
    whole.save_as(tmp_path / "multi" / "one.dcm")
    single, multi = read(tmp_path / "single"), read(tmp_path / "multi")
    np.testing.assert_array_equal(multi.volume.array, single.volume.array)
    np.testing.assert_allclose(multi.volume.grid.affine, single.volume.grid.affine, atol=1e-9)
    assert multi.slices.keys() == {f"1.2.3.6#{number}" for number in range(1, 7)}


def _needed(modality):
    # what highdicom asks of the images it converts
    tags = {
        "PatientName": "", "PatientBirthDate": "", "PatientSex": "", "StudyDate": "20200102",
        "StudyTime": "110000", "StudyID": "", "AccessionNumber": "", "ReferringPhysicianName": "",
        "Manufacturer": "X", "PositionReferenceIndicator": "", "InstanceCreationDate": "20200102",
        "InstanceCreationTime": "110000", "Laterality": None,
    }  # fmt: skip
    return {k: v for k, v in tags.items() if v is not None} | ({} if modality != "MR" else {"EchoTime": "2"})


def test_frames_without_a_place_are_refused(tmp_path, dicom):
    def change(header, number):
        header.NumberOfFrames = 2
        header.PixelData = header.PixelData * 2

    dicom.write_series(tmp_path, "CT", count=2, change=change)
    with pytest.raises(UserError, match="multi-frame object of 2 frames"):
        read(tmp_path)
