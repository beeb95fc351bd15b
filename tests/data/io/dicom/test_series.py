"""Which series lie below a folder, and which files are no good."""

from __future__ import annotations

import builtins
import os

import pytest

from umdseg.data.io.dicom.series import find_series
from umdseg.errors import UserError


def test_series_are_told_apart_whatever_the_files_are_called(tmp_path, dicom):
    ct = dicom.write_series(tmp_path / "all", "CT", count=4)
    for path in ct:
        path.rename(path.with_suffix(".txt"))
    dicom.write_series(tmp_path / "all", "PT", count=3)
    dicom.write_series(tmp_path / "deep" / "er", "MR", count=5, FrameOfReferenceUID=None)
    found, findings = find_series(tmp_path)
    assert {s.modality: len(s.files) for s in found} == {"CT": 4, "PT": 3, "MR": 5}
    assert {s.modality: s.frame for s in found} == {"CT": dicom.FRAME, "PT": dicom.FRAME, "MR": ""}
    assert {s.study for s in found} == {dicom.STUDY}
    assert {s.number for s in found} == {"7"}
    assert findings == []


def test_messages_and_prints_of_a_series_hold_nothing_that_identifies(tmp_path, dicom):
    planted = {
        "PatientName": "Planted^Name",
        "SeriesDescription": "planted words",
        "IssuerOfPatientID": "Planted Clinic",
    }
    dicom.write_series(tmp_path, "CT", count=2, patient="planted-id", **planted)
    (series,), _ = find_series(tmp_path)
    assert series.patient == "planted-id\x1fPlanted Clinic"
    assert "lanted" not in repr(series) + series.name
    assert series.name == "CT series of 2 files"


def test_other_files_and_dicomdirs_are_counted_and_left_out(tmp_path, dicom):
    dicom.write_series(tmp_path / "ct", "CT", count=2)
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "empty").touch()
    directory = dicom.pet_header(SOPClassUID="1.2.840.10008.1.3.10", SOPInstanceUID="1.2.3")
    dicom.save(directory, tmp_path / "DICOMDIR")
    found, findings = find_series(tmp_path)
    assert [len(s.files) for s in found] == [2]
    assert [(f.level, f.what[:8]) for f in findings] == [("pass", "3 files ")]


def test_files_without_the_preamble_are_read(tmp_path, dicom):
    # as exported before DICOM PS3.10: the data set alone, implicit VR
    from pydicom import dcmread

    (path, *_) = dicom.write_series(tmp_path, "CT", count=2)
    header = dcmread(path)
    header.preamble = None
    del header.file_meta
    header.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert path.read_bytes()[128:132] != b"DICM"
    (series,), findings = find_series(tmp_path)
    assert (len(series.files), findings) == (2, [])


@pytest.mark.parametrize("left", [0.3, 0.8, 0.99], ids=["header", "pixels", "last bytes"])
def test_a_truncated_file_is_refused_by_name(tmp_path, dicom, left):
    (path, *_) = dicom.write_series(tmp_path, "CT", count=3)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * left)])
    (series,), (finding,) = find_series(tmp_path)
    assert len(series.files) == 2
    assert finding.level == "refuse"
    assert "truncated" in finding.what
    assert str(path) in finding.where


def test_an_object_without_pixels_is_refused_if_its_last_value_is_cut(tmp_path, dicom):
    # contours that end in the middle would be read as they stand
    from pydicom.dataset import Dataset

    header = Dataset()
    header.SOPClassUID, header.Modality = "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"
    header.ContourData = [0.0] * 300
    dicom.save(header, tmp_path / "rs.dcm")
    assert [s.modality for s in find_series(tmp_path)[0]] == ["RTSTRUCT"]
    whole = (tmp_path / "rs.dcm").read_bytes()
    (tmp_path / "rs.dcm").write_bytes(whole[:-100])
    found, (finding,) = find_series(tmp_path)
    assert found == []
    assert "truncated" in finding.what


def test_an_image_without_pixel_data_is_refused_by_name(tmp_path, dicom):
    dicom.write_series(tmp_path / "a", "CT", count=3)
    dicom.write_series(tmp_path / "b", "MR", count=2, PixelData=None)
    found, findings = find_series(tmp_path)
    assert [s.modality for s in found] == ["CT"]
    assert len(findings) == 2
    assert all("no pixel data" in f.what and f.level == "refuse" for f in findings)


def test_a_loop_of_links_ends_and_finds_each_file_once(tmp_path, dicom):
    dicom.write_series(tmp_path / "a" / "b", "CT", count=2)
    (tmp_path / "a" / "b" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (series,), findings = find_series(tmp_path)
    assert len(series.files) == 2
    assert [f.level for f in findings] == ["refuse"]  # the link to itself cannot be read
    assert findings[0].where.endswith("self")


def test_a_folder_that_may_not_be_read_is_told(tmp_path, dicom, monkeypatch):
    dicom.write_series(tmp_path / "open", "CT", count=2)
    (tmp_path / "shut").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("shut"):  # tests may run as root, whom no mode stops
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found, (finding,) = find_series(tmp_path)
    assert len(found) == 1
    assert finding.level == "refuse"
    assert finding.where.endswith("shut")


def test_series_without_uid_are_told_apart_by_folder(tmp_path, dicom):
    for name in ("one", "two"):
        dicom.write_series(tmp_path / name, "CT", count=3, SeriesInstanceUID="")
    found, findings = find_series(tmp_path)
    assert [(s.uid, len(s.files)) for s in found] == [("no-uid-1", 3), ("no-uid-2", 3)]
    assert [f.level for f in findings] == ["warn"]


def test_one_uid_for_two_patients_makes_two_series(tmp_path, dicom):
    for name in ("A", "B"):
        dicom.write_series(tmp_path / name, "CT", count=3, uid="1.2.3.9", patient=name)
    found, _ = find_series(tmp_path)
    assert [(s.patient, len(s.files)) for s in found] == [("A", 3), ("B", 3)]


def test_a_folder_without_dicom_is_a_user_error(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(UserError, match="no DICOM file found among 1 files"):
        find_series(tmp_path)
    with pytest.raises(UserError, match="folder is missing"):
        find_series(tmp_path / "nowhere")


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pydicom":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install umdseg\[dicom\]"):
        find_series(tmp_path)
