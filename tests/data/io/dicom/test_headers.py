"""Tracers, MR sequences, and what is no scan at all."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from umdseg.data.io.dicom.headers import not_a_scan, sequence, tracer
from umdseg.data.io.dicom.series import find_series
from umdseg.data.io.dicom.volume import read_series
from umdseg.errors import UserError


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # code meanings of DICOM PS3.16 CID 4021 and free text of scanners
        ("Fluorodeoxyglucose F^18^", "FDG"),
        ("FDG -- fluorodeoxyglucose", "FDG"),
        ("F-18 FDG", "FDG"),
        ("[18F]FDG", "FDG"),
        ("Fludeoxyglucose (^18^F)", "FDG"),
        ("Ga-68 PSMA-11", "PSMA"),
        ("Gallium 68 PSMA-11", "PSMA"),
        ("F18-PSMA-1007", "PSMA"),
        ("Piflufolastat F^18^", "PSMA"),
        ("68Ga-DOTATATE", "DOTATATE"),
        ("Fluoride F^18^", "NaF"),
        ("Sodium Fluoride F^18^", "NaF"),
        ("Choline C^11^", "Choline"),
        ("Fluoro-L-dopa F^18^", "FDOPA"),
        ("Flutemetamol F^18^", "Amyloid"),
        ("Ammonia N^13^", "Ammonia"),
        ("Solution", ""),
        ("", ""),
    ],
)
def test_tracers_by_text_and_by_code_meaning(dicom, said, expected):
    assert tracer(dicom.pet_header(Radiopharmaceutical=said)) == expected
    code = Dataset()
    code.CodeMeaning = said
    header = dicom.pet_header(Radiopharmaceutical=None, RadiopharmaceuticalCodeSequence=[code])
    assert tracer(header) == expected


def test_tracer_by_code_alone(dicom):
    code = Dataset()
    code.CodeValue = "C-B1031"  # SNOMED-RT, fluorodeoxyglucose F-18
    header = dicom.pet_header(Radiopharmaceutical=None, RadiopharmaceuticalCodeSequence=[code])
    assert tracer(header) == "FDG"
    assert tracer(Dataset()) == ""


IR = ["SE", "IR"]


def mr(**tags):
    header = Dataset()
    for keyword, value in tags.items():
        setattr(header, keyword, value)
    return header


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (mr(SeriesDescription="IBSI_1_STS_002_MR_T1_image"), "T1"),
        (mr(SeriesDescription="t2_tse_tra_p2"), "T2"),
        (mr(SeriesDescription="T2 FLAIR cor"), "FLAIR"),
        (mr(ProtocolName="t2_tirm_cor"), "STIR"),
        (mr(ProtocolName="ep2d_diff_b50_800", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]), "ADC"),
        (mr(ProtocolName="ep2d_diff_b50_800"), "DWI"),
        (mr(ProtocolName="T2*_gre"), "T2*"),
        (mr(AcquisitionContrast="PROTON_DENSITY", SeriesDescription="t1"), "PD"),
        # typical times, in ms, of textbooks (spin echo at 1.5 T, spoiled gradient echo)
        (mr(ScanningSequence="SE", RepetitionTime="500", EchoTime="12"), "T1"),
        (mr(ScanningSequence="SE", RepetitionTime="4000", EchoTime="100"), "T2"),
        (mr(ScanningSequence="SE", RepetitionTime="3000", EchoTime="15"), "PD"),
        (mr(ScanningSequence=IR, RepetitionTime="9000", EchoTime="110", InversionTime="2500"), "FLAIR"),
        (mr(ScanningSequence=IR, RepetitionTime="4000", EchoTime="60", InversionTime="150"), "STIR"),
        (mr(ScanningSequence="GR", SequenceVariant="SP", RepetitionTime="5", EchoTime="2.3"), "T1"),
        # steady state mixes T1 and T2
        (mr(ScanningSequence="GR", SequenceVariant="SS", RepetitionTime="4", EchoTime="2"), ""),
        (mr(SeriesDescription="T10 level"), ""),
        (mr(), ""),
    ],
)  # fmt: skip
def test_mr_sequences(header, expected):
    assert sequence(header) == expected


@pytest.mark.parametrize(
    ("modality", "tags", "reason"),
    [
        ("CT", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ("MR", {"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "MIP"]}, "projection"),
        ("PT", {"SeriesType": ["WHOLE BODY", "REPROJECTION"]}, "projection"),
        ("CT", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "Secondary Capture"),
        ("CT", {"Modality": "SR"}, "SR is no CT, PET or MR image"),
    ],
)
def test_what_is_no_scan_is_left_out_with_its_reason(tmp_path, dicom, modality, tags, reason):
    dicom.write_series(tmp_path, modality, **tags)
    (series,), _ = find_series(tmp_path)
    finding = not_a_scan(series)
    assert finding.level == "warn"
    assert reason in finding.what
    with pytest.raises(UserError, match="left out"):
        read_series(series)


def test_scans_are_scans_even_if_derived(tmp_path, dicom):
    # a resampled or converted series is DERIVED\SECONDARY (as STS_002's PET)
    dicom.write_series(tmp_path / "a", "PT", ImageType=["DERIVED", "SECONDARY"])
    dicom.write_series(tmp_path / "b", "CT")
    assert [not_a_scan(series) for series in find_series(tmp_path)[0]] == [None, None]
