"""SUV by body weight: real scans against their oracle, vendors' headers by hand, rules one by one."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import nibabel as nib
import numpy as np
import pytest

from umdseg.data.io.dicom.series import find_series
from umdseg.data.io.suv import read_pet, suv_factor
from umdseg.data.verdict import worst
from umdseg.errors import UserError

F18 = 6586.2


def read(folder):
    (series,) = [s for s in find_series(folder)[0] if s.modality == "PT"]
    return read_pet(series)


def test_raw_pet_becomes_the_suv_of_the_published_nifti(shared_data):
    scan = read(shared_data / "sts_raw_dicom" / "STS_001" / "FDG_PET" / "image")
    oracle = nib.load(shared_data / "sts_pet_ct_mr" / "nifti" / "STS_001" / "PET_image.nii.gz")
    expected = np.asarray(oracle.dataobj, dtype=np.float64)
    index = np.moveaxis(np.indices(expected.shape), 0, -1).reshape(-1, 3)
    ours = scan.volume.grid.to_index(nib.affines.apply_affine(oracle.affine, index))
    # the oracle is cropped from the same grid
    np.testing.assert_allclose(ours, ours.round(), atol=1e-3)
    suv = scan.volume.array[tuple(ours.round().astype(int).T)].astype(np.float64)
    expected = expected.reshape(-1)
    assert 1 - np.corrcoef(suv, expected)[0, 1] < 1e-6
    inside = expected > 0.1
    assert inside.sum() > 1000
    assert abs(np.median(suv[inside] / expected[inside]) - 1) < 1e-4
    assert scan.findings[0].level == "pass"
    assert "45.2 min after injection" in scan.findings[0].what  # 10:35:00 to 11:20:11


def test_an_image_that_is_suv_is_not_scaled_twice(shared_data):
    folder = shared_data / "sts_pet_ct_mr"
    scan = read(folder / "dicom" / "STS_002" / "PET")
    oracle = nib.load(folder / "nifti" / "STS_002" / "PET_image.nii.gz")
    np.testing.assert_allclose(scan.volume.grid.affine, oracle.affine, atol=1e-4)
    np.testing.assert_allclose(scan.volume.array, np.asarray(oracle.dataobj), rtol=1e-6, atol=1e-7)
    assert "already SUV" in scan.findings[0].what


def decayed(weight_kg, dose_bq, half_life_s, seconds):
    """Grams of body per becquerel of the dose that is left after `seconds`."""
    return weight_kg * 1000 / (dose_bq * 2 ** (-seconds / half_life_s))


# by hand from each header
VENDORS = {
    # Series Time 12:35:15 is 5 us later than Acquisition Time 12:35:14.999995, so it is not taken.
    # Frame of 120 s: mean activity at 59.93685 s; Frame Reference Time 59.93685 s: the frame's start
    # is the reference, 12:35:15 - 11:41:00 = 54 min 15 s
    "BQML_AC_DT_lessThan_S_DT_SIEMENS": decayed(65, 225e6, 6586.2, 54 * 60 + 15),
    # Series Time 13:49:18 is after the acquisition, Frame Reference Time 0:
    # Acquisition Time 13:03:48.234 - 12:00:37 = 1 h 3 min 11.234 s
    "CPS_AND_BQML_AC_DT_-_S_DT": decayed(69, 388e6, 6586.2, 3600 + 3 * 60 + 11.234),
    # Series Time = Acquisition Time 09:56:21 - 08:45:00 = 1 h 11 min 21 s
    "GE_MEDICAL_AND_BQML": decayed(52, 152022720, 6586.2001953125, 3600 + 11 * 60 + 21),
    # Series Time 11:01:55 - 10:00:58 = 1 h 57 s; Philips' own factors are for counts and not used
    "PHILIPS_BQML": decayed(64, 126e6, 6586.199707, 3600 + 57),
    # counts: Philips' SUV factor
    "PHILIPS_CNTS_AND_BQML_SUV": 0.000551,
    "PHILIPS_CNTS_AND_SUV": 0.000728,
    # Series Time 13:54:31.843 - 12:50:00 = 1 h 4 min 31.843 s
    "RADIOPHARM_DATETIME_UNDEFINED": decayed(102, 412e6, 6586.2, 3600 + 4 * 60 + 31.843),
    # Series Time 10:48:29 - 08:30:45 = 2 h 17 min 44 s
    "SIEMENS": decayed(67, 374e6, 6586.2, 2 * 3600 + 17 * 60 + 44),
}


def vendor_headers(shared_data, dicom, name):
    """The published JSON as data sets."""
    path = shared_data / "suv_headers" / "metadata" / f"{name}-instances.json"
    inner = ("RadionuclideTotalDose", "RadionuclideHalfLife", "RadiopharmaceuticalStartTime")
    for values in json.loads(path.read_text()):
        philips = values.pop("PhilipsPETPrivateGroup")
        full = values.pop("RadiopharmaceuticalStartDateTime", None)
        numbers = {k: str(v) if isinstance(v, float) else v for k, v in values.items()}
        header = dicom.pet_header(**{k: v for k, v in numbers.items() if k not in inner})
        header.RadiopharmaceuticalInformationSequence = [
            dicom.radiopharmaceutical(
                **{k: numbers[k] for k in inner}, RadiopharmaceuticalStartDateTime=full and full.strip()
            )
        ]
        if philips:
            block = header.private_block(0x7053, "Philips PET Private Group", create=True)
            for element, key in ((0x00, "SUVScaleFactor"), (0x09, "ActivityConcentrationScaleFactor")):
                if key in philips:
                    block.add_new(element, "DS", philips[key].strip())
        yield header


@pytest.mark.parametrize("name", VENDORS)
def test_vendor_headers_give_the_factor_derived_by_hand(shared_data, dicom, name):
    headers = list(vendor_headers(shared_data, dicom, name))
    assert len(headers) == 3
    for header in headers:
        assert suv_factor(header).factor == pytest.approx(VENDORS[name], rel=1e-6)


def test_philips_factors_agree_with_each_other(shared_data, dicom):
    # one vendor gives both factors, rounded to three and seven digits: the rules must agree so far
    (header, *_) = vendor_headers(shared_data, dicom, "PHILIPS_CNTS_AND_BQML_SUV")
    own = suv_factor(header)
    assert "(7053,1000)" in own.rule
    del header[0x7053, 0x1000]
    by_activity = suv_factor(header)
    assert "(7053,1009)" in by_activity.rule
    assert by_activity.factor == pytest.approx(own.factor, rel=1e-3)
    # Bq/ml: SUV per count over Bq/ml per count
    (header, *_) = vendor_headers(shared_data, dicom, "PHILIPS_BQML")
    assert suv_factor(header).factor == pytest.approx(0.003515736 / 4.709921, rel=1e-3)


HOUR = 70000 / (350e6 * 2 ** (-3600 / F18))


def test_decay_corrected_to_start_or_injection(dicom):
    assert suv_factor(dicom.pet_header()).factor == pytest.approx(HOUR)
    assert suv_factor(dicom.pet_header(DecayCorrection="ADMIN")).factor == pytest.approx(70000 / 350e6)


def test_uncorrected_frames_get_the_activity_that_was_left(tmp_path, dicom):
    # a body of SUV 2 throughout: each bed position measures the mean activity over its own frame
    beds = [("111000.00", 180), ("114000.00", 600), ("123000.00", 1200)]

    def change(header, number):
        clock, duration = beds[number]
        header.AcquisitionTime, header.ActualFrameDuration = clock, str(duration * 1000)
        begin = (datetime.strptime(clock[:6], "%H%M%S") - datetime(1900, 1, 1, 10)).total_seconds()
        seconds = begin + (np.arange(10000) + 0.5) / 10000 * duration
        mean = (2 * 350e6 / 70000 * 0.5 ** (seconds / F18)).mean()
        header.RescaleSlope = f"{mean / 1000:.12g}"
        header.DecayCorrection, header.CorrectedImage = "NONE", ["ATTN", "SCAT"]

    dicom.write_series(tmp_path, "PT", stored=np.full((3, 4, 4), 1000, np.int16), change=change)
    scan = read(tmp_path)
    np.testing.assert_allclose(scan.volume.array, 2.0, rtol=1e-6)
    assert "not decay corrected" in scan.findings[0].what
    # without the frame's time nobody knows
    header = dicom.pet_header(DecayCorrection="NONE", CorrectedImage=["ATTN"], ActualFrameDuration=None)
    refused(header, "Actual Frame Duration (0018,1242)")


def test_a_reprocessed_series_uses_the_private_scan_time_of_ge(dicom):
    header = dicom.pet_header(
        SeriesTime="150000", AcquisitionTime="111500", Manufacturer="GE MEDICAL SYSTEMS"
    )
    header.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20200102110000.00")
    found = suv_factor(header)
    assert found.factor == pytest.approx(HOUR)
    assert "GE private" in found.rule


def reprocessed(tmp_path, dicom, references):
    """Three beds of 2 min, acquired from 11:00:00 on, in a series dated later."""
    rate = np.log(2) / F18
    seconds = (np.arange(100000) + 0.5) / 100000 * 120
    middle = -np.log(np.exp(-rate * seconds).mean()) / rate  # where activity equals its mean

    def change(header, number):
        start = datetime(2020, 1, 2, 11) + timedelta(seconds=120 * number)
        header.AcquisitionTime, header.SeriesTime = start.strftime("%H%M%S"), "150000"
        header.FrameReferenceTime = f"{(references[number] + middle) * 1000:.6f}"

    dicom.write_series(tmp_path, "PT", stored=np.full((3, 4, 4), 100, np.int16), change=change)
    return read(tmp_path)


def test_a_reprocessed_series_counts_back_from_its_frames(tmp_path, dicom):
    scan = reprocessed(tmp_path, dicom, [0, 120, 240])
    np.testing.assert_allclose(scan.volume.array, 100 * HOUR, rtol=1e-6)
    assert "Frame Reference Time" in scan.findings[0].what


def test_frames_that_contradict_each_other_are_refused(tmp_path, dicom):
    with pytest.raises(UserError, match="frames disagree by 480 s"):
        reprocessed(tmp_path, dicom, [0, 120, 720])


def test_counts_without_or_with_stripped_creator(dicom):
    header = dicom.pet_header(Units="CNTS")
    refused(header, "counts", "(7053,1000)")
    # a private value whose creator element was lost, read as bytes of unknown representation
    header.add_new((0x7053, 0x1000), "UN", b"0.000728")
    assert suv_factor(header).factor == pytest.approx(0.000728)
    other = dicom.pet_header(Units="CNTS")
    other.private_block(0x7053, "Somebody Else", create=True).add_new(0x00, "DS", "0.5")
    refused(other, "counts")


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        # across midnight: the injection was on the day before
        ({"RadiopharmaceuticalStartTime": "233000",
          "SeriesTime": "003000", "AcquisitionTime": "003000"}, "warn"),
        ({"RadiopharmaceuticalStartDateTime": "20200101233000", "RadiopharmaceuticalStartTime": None,
          "SeriesTime": "003000", "AcquisitionTime": "003000"}, "pass"),
        # a date that de-identification shifted on its own (as in STS_002)
        ({"RadiopharmaceuticalStartDateTime": "20200103100000"}, "warn"),
        ({"RadiopharmaceuticalStartDateTime": "19990102100000+0100"}, "warn"),
        # dates removed everywhere
        ({"SeriesDate": None, "AcquisitionDate": None}, "pass"),
        # older spellings
        ({"SeriesTime": "11", "AcquisitionTime": "1100", "RadiopharmaceuticalStartTime": "1000"}, "pass"),
    ],
)  # fmt: skip
def test_an_hour_is_an_hour_however_it_is_written(dicom, changes, level):
    found = suv_factor(dicom.pet_header(**changes))
    assert found.factor == pytest.approx(HOUR)
    assert worst(found.findings) == level


def test_long_lived_tracers_need_the_day_of_injection(dicom):
    zr89 = {"RadionuclideHalfLife": "282240", "RadionuclideTotalDose": "37000000"}
    refused(dicom.pet_header(**zr89), "day of injection", "(0018,1078)")
    found = suv_factor(dicom.pet_header(**zr89, RadiopharmaceuticalStartDateTime="20191230100000"))
    assert found.factor == pytest.approx(decayed(70, 37e6, 282240, 3 * 86400 + 3600))


def refused(header, *parts):
    with pytest.raises(UserError) as error:
        suv_factor(header)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"PatientWeight": None}, ["(0010,1030) is missing"]),
        ({"PatientWeight": "0"}, ["(0010,1030) is 0 kg"]),
        ({"PatientWeight": "70000"}, ["(0010,1030) is 70000 kg", "another unit"]),
        ({"RadionuclideTotalDose": None}, ["(0018,1074) is missing"]),
        ({"RadionuclideTotalDose": "350"}, ["(0018,1074) is 350 Bq", "another unit"]),
        ({"RadionuclideHalfLife": None}, ["(0018,1075) is missing"]),
        ({"RadionuclideHalfLife": "0"}, ["(0018,1075) is 0 s"]),
        ({"RadiopharmaceuticalStartTime": None}, ["time of injection", "(0018,1072)", "(0018,1078)"]),
        ({"RadiopharmaceuticalStartDateTime": "20200102090000"}, ["differ by 3600 s"]),
        # 23.5 h or 12.8 half-lives before, if it was not after the scan
        ({"RadiopharmaceuticalStartTime": "113000"}, ["13 half-lives"]),
        ({"SeriesTime": None, "AcquisitionTime": None}, ["time of the scan", "(0008,0021/0031)"]),
        # times of day zeroed by de-identification
        ({"SeriesTime": "000000"}, ["11.0 h before the first Acquisition Time"]),
        ({"Units": "PROPCPS"}, ["(0054,1001) are 'PROPCPS'"]),
        ({"Units": None}, ["(0054,1001) are missing"]),
        ({"Units": "GML", "SUVType": "LBM"}, ["type LBM", "(0054,1006)"]),
        ({"DecayCorrection": None}, ["(0054,1102) is missing"]),
        ({"CorrectedImage": ["DECY"]}, ["(0028,0051) lacks ATTN"]),
        ({"CorrectedImage": ["ATTN"]}, ["(0028,0051) lacks DECY"]),
        ({"DecayCorrection": "NONE"}, ["(0028,0051) names DECY"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.130"}, ["Enhanced PET"]),
    ],
)
def test_what_is_missing_or_absurd_is_refused_by_its_tag(dicom, changes, parts):
    refused(dicom.pet_header(**changes), *parts)


@pytest.mark.parametrize("meaning", ["18F", "F-18", "^18^Fluorine"])
def test_a_half_life_in_minutes_is_refused(dicom, meaning):
    from pydicom.dataset import Dataset

    code = Dataset()
    code.CodeValue, code.CodeMeaning = "C-111A1", meaning
    header = dicom.pet_header(RadionuclideHalfLife="109.77", RadionuclideCodeSequence=[code])
    refused(header, "109.77 s", "F-18 has 6586 s")
    header = dicom.pet_header(RadionuclideHalfLife="6588", RadionuclideCodeSequence=[code])
    assert suv_factor(header).factor == pytest.approx(decayed(70, 350e6, 6588, 3600))


def test_no_or_two_tracers_are_refused(dicom):
    header = dicom.pet_header()
    header.RadiopharmaceuticalInformationSequence = [dicom.radiopharmaceutical()] * 2
    refused(header, "(0054,0016) has 2 items")
    del header.RadiopharmaceuticalInformationSequence
    refused(header, "(0054,0016) has 0 items")


def test_unknown_corrections_warn(dicom):
    found = suv_factor(dicom.pet_header(CorrectedImage=None))
    assert found.factor == pytest.approx(HOUR)
    assert worst(found.findings) == "warn"


def test_a_series_of_two_units_is_refused(tmp_path, dicom):
    def change(header, number):
        header.Units = "GML" if number == 2 else "BQML"

    dicom.write_series(tmp_path, "PT", change=change)
    with pytest.raises(UserError, match="Units differs between images"):
        read(tmp_path)


def test_a_malformed_weight_is_no_weight_and_is_not_repeated(tmp_path, dicom, recwarn):
    for file in dicom.write_series(tmp_path, "PT", PatientWeight="71.25"):
        file.write_bytes(file.read_bytes().replace(b"71.25", b"71 kg"))
    with pytest.raises(UserError, match=r"\(0010,1030\) is missing"):
        read(tmp_path)
    assert not [w for w in recwarn if "71 kg" in str(w.message)]
