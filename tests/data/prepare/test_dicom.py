"""`prepare_dicom` from a scanner's folder to a manifest that reads and checks."""

from __future__ import annotations

import csv
import gzip
import hashlib
import hmac
from base64 import b32encode

import nibabel as nib
import numpy as np
import pydicom
import pytest

from umdseg.data.checks import check_subjects
from umdseg.data.manifest import read_manifest
from umdseg.data.prepare.dicom import DicomOptions, prepare_dicom
from umdseg.errors import UserError

pytestmark = pytest.mark.usefixtures("no_pictures")


def prepare(hospital, out, **options):
    return prepare_dicom(hospital.root, out, DicomOptions(**options))


def messages(summary, level="warn"):
    return [f"{name}: {finding.what}" for name, finding in summary.told if finding.level == level]


def table(path):
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def load(path):
    image = nib.load(path)
    return np.asarray(image.dataobj), image.affine


def test_scans_of_one_patient_become_one_subject(hospital, tmp_path):
    hospital.patient("Ann", ["CT", "PT", "MR"])
    hospital.patient("Bob", ["CT", "PT"])
    summary = prepare(hospital, tmp_path / "out")
    assert not summary.refused
    assert messages(summary) == []
    dataset = read_manifest(summary.manifest)
    check_subjects(dataset.subjects)
    assert sorted(sorted(s.scans) for s in dataset.subjects) == [["ct", "mr", "pet"], ["ct", "pet"]]
    assert {s.split for s in dataset.subjects} == {""}
    scans = {m: scan for s in dataset.subjects for m, scan in s.scans.items()}
    assert (scans["pet"].tracer_or_sequence, scans["pet"].units) == ("FDG", "SUV")
    ct, affine = load(scans["ct"].image)
    # stored 24 and 1064 with intercept -1024; first voxel at LPS (-22, -22, 0)
    assert (ct[0, 0, 0], ct[3, 3, 1]) == (-1000, 40)
    assert (affine @ (0, 0, 0, 1))[:3].tolist() == [22, 22, 0]
    pet, _ = load(scans["pet"].image)
    # 350 MBq decayed one hour over 70 kg
    suv1 = 350e6 * 2 ** (-3600 / 6586.2) / 70e3
    assert pet[3, 3, 1] == pytest.approx(3400 / suv1, rel=1e-5)


def test_subjects_are_called_by_a_keyed_hash(hospital, tmp_path, key_file):
    hospital.patient("Ann", ["CT"], IssuerOfPatientID="clinic")
    hospital.patient("Bob", ["CT"])
    first = prepare(hospital, tmp_path / "one")
    key = key_file.read_bytes().strip()
    assert key_file.stat().st_mode & 0o777 == 0o600
    wanted = [hmac.new(key, text, hashlib.sha256).digest() for text in (b"Ann\x1fclinic", b"Bob")]
    names = sorted("sub-" + b32encode(digest).decode().lower()[:10] for digest in wanted)
    assert sorted(s.id for s in first.subjects) == names
    assert [s.id for s in prepare(hospital, tmp_path / "two").subjects] == [s.id for s in first.subjects]
    other = tmp_path / "other.key"
    other.write_text("0" * 64)
    other.chmod(0o600)
    third = prepare(hospital, tmp_path / "three", key=other)
    assert not {s.id for s in third.subjects} & set(names)


def test_kept_ids_come_with_a_warning(hospital, tmp_path, key_file):
    hospital.patient("Ann 7/3", ["CT"])
    summary = prepare(hospital, tmp_path / "out", keep_ids=True)
    assert [s.id for s in summary.subjects] == ["Ann_7_3"]
    assert "patient ids are kept" in messages(summary)[0]
    assert not key_file.exists()


def test_kept_ids_that_are_one_are_refused(hospital, tmp_path):
    hospital.patient("Ann/1", ["CT"])
    hospital.patient("Ann 1", ["CT"])
    with pytest.raises(UserError, match="two patients would both be called 'Ann_1'"):
        prepare(hospital, tmp_path / "out", keep_ids=True)


def test_frames_of_reference_of_one_study_become_subjects_of_one_person(hospital, tmp_path):
    hospital.patient("Ann", ["CT", "PT"])
    hospital.patient("Ann", ["MR"], FrameOfReferenceUID="1.9.9")
    summary = prepare(hospital, tmp_path / "out")
    assert sorted(sorted(s.scans) for s in summary.subjects) == [["ct", "pet"], ["mr"]]
    person = summary.subjects[0].id[:14]
    assert {s.patient for s in read_manifest(summary.manifest).subjects} == {person}
    assert all(s.id.startswith(f"{person}-") for s in summary.subjects)
    assert "2 frames of reference, which are not one patient space" in messages(summary)[0]


def test_a_localizer_with_a_frame_of_its_own_changes_nothing(hospital, tmp_path):
    hospital.patient("Ann", ["CT", "PT"])
    alone = prepare(hospital, tmp_path / "alone")
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    hospital.patient("Ann", ["CT"], folder="scout", FrameOfReferenceUID="1.9.9", ImageType=scout)
    with_scout = prepare(hospital, tmp_path / "with")
    assert [s.id for s in with_scout.subjects] == [s.id for s in alone.subjects]
    assert messages(with_scout) == []


def test_of_several_series_the_rule_takes_one_and_says_so(hospital, tmp_path):
    same = {"StudyInstanceUID": "1.5", "FrameOfReferenceUID": "1.6", "patient": "Ann"}
    uncorrected = {"uid": "1.1", "CorrectedImage": ["DECY"], "count": 12}
    hospital.series("nac", "PT", **same, **uncorrected)
    hospital.series("ac", "PT", **same, uid="1.2", ImageType=["DERIVED", "PRIMARY"])
    hospital.series("short", "CT", **same, uid="1.3", count=6)
    hospital.series("long", "CT", **same, uid="1.4", count=9)
    hospital.series("derived", "CT", **same, uid="1.7", count=20, ImageType=["DERIVED", "PRIMARY", "AXIAL"])
    summary = prepare(hospital, tmp_path / "out")
    ct, pet = (summary.subjects[0].scans[m].image for m in ("ct", "pet"))
    assert load(ct)[0].shape == (12, 12, 9)
    assert load(pet)[0].shape == (12, 12, 8)
    name = summary.subjects[0].id
    assert f"3 ct series; took {name}/ct2 (CT series of 9 files)" in messages(summary)[0]
    skipped = [row for row in table(tmp_path / "out" / "qa.csv") if row["verdict"] == "skipped"]
    assert [(row["modality"], row["series"]) for row in skipped] == [("ct", "1"), ("ct", "3"), ("pet", "1")]

    for forced in ("1.3", f"{name}/ct1"):
        other = prepare(hospital, tmp_path / "out", series=[forced])
        assert load(other.subjects[0].scans["ct"].image)[0].shape == (12, 12, 6)
    with pytest.raises(UserError, match="unknown series") as error:
        prepare(hospital, tmp_path / "out", series=[f"{name}/ct9"])
    assert f"did you mean: {name}/ct" in str(error.value)
    with pytest.raises(UserError, match="--series names 2 ct series"):
        prepare(hospital, tmp_path / "out", series=["1.3", "1.4"])


def test_labels_lie_on_the_scan_they_refer_to_and_are_shared_by_the_others(hospital, tmp_path):
    hospital.patient("Ann", ["CT", "PT", "MR"])
    hospital.contours("Ann", "CT", {"Liver": (0.0, 7.0), "GTV_1": (12.0, 3.0)})
    hospital.contours("Ann", "PT", {"GTV_pet": (12.0, 3.0)})
    summary = prepare(hospital, tmp_path / "out", roi=["GTV*=tumour"])
    dataset = read_manifest(summary.manifest)
    check_subjects(dataset.subjects)
    assert list(dataset.structures) == ["liver", "tumour"]
    scans = dataset.subjects[0].scans
    assert [scans[m].label.name for m in ("ct", "pet", "mr")] == [
        "ct_label.nii.gz",
        "pet_label.nii.gz",
        "ct_label.nii.gz",
    ]
    ct, affine = load(scans["ct"].label)
    found = np.argwhere(ct == dataset.structures["liver"]) @ affine[:3, :3].T + affine[:3, 3]
    centres = {(x, y, z) for x in (-6, -2, 2, 6) for y in (-6, -2, 2, 6) for z in (6, 9, 12)}
    assert {tuple(p) for p in found.tolist()} == centres
    assert set(np.unique(load(scans["pet"].label)[0])) == {0, dataset.structures["tumour"]}
    assert ct.dtype == np.int16
    assert messages(summary) == []


def test_regions_without_a_structure_are_left_out_and_listed(hospital, tmp_path):
    hospital.patient("Ann", ["CT"])
    hospital.contours("Ann", "CT", {"Livr": (0.0, 7.0), "Spleen": (12.0, 3.0), "couch": (0.0, 9.0)})
    summary = prepare(hospital, tmp_path / "out", roi=["couch=", "PTV=tumour"])
    assert summary.structures == {"spleen": 1}
    left = [finding for _, finding in summary.told if "no structure" in finding.what]
    assert [(finding.where, finding.nearest) for finding in left] == [("'Livr'", "liver")]
    unused = [finding for _, finding in summary.told if finding.what == "no region has this name"]
    assert unused[0].where == "--roi 'PTV=tumour'"
    with pytest.raises(UserError, match="unknown structure 'tumur'") as error:
        prepare(hospital, tmp_path / "out", roi=["PTV=tumur"])
    assert "did you mean: tumour" in str(error.value)
    with pytest.raises(UserError, match="'PTV' names no structure"):
        prepare(hospital, tmp_path / "out", roi=["PTV"])


def test_where_regions_overlap_the_later_in_the_list_wins(hospital, tmp_path):
    hospital.patient("Ann", ["CT"])
    hospital.contours("Ann", "CT", {"Liver": (0.0, 7.0), "Spleen": (4.0, 3.0)})
    summary = prepare(hospital, tmp_path / "out")
    array, _ = load(summary.subjects[0].scans["ct"].label)
    counts = np.bincount(array.ravel())
    # spleen: centres 2 and 6 in x and y on 3 slices, all of them inside the liver's 4 x 4
    assert counts[summary.structures["spleen"]] == 12
    assert counts[summary.structures["liver"]] == 3 * 16 - 12
    assert f"spleen overlaps liver by {12 * 4 * 4 * 3 / 1000:.2f} ml" in messages(summary)[0]


def test_a_region_drawn_again_counts_as_the_newer_object_has_it(hospital, tmp_path):
    hospital.patient("Ann", ["CT"])
    new = hospital.contours("Ann", "CT", {"Liver": (0.0, 7.0)}, StructureSetDate="20200202")
    hospital.files["more"] = []
    old = hospital.contours(
        "Ann", "CT", {"LIVER": (12.0, 7.0), "GTV_1": (12.0, 3.0)}, StructureSetDate="20190101"
    )
    third = {"GTV_2": (-12.0, 3.0)}
    hospital.files["even more"] = []
    hospital.contours("Ann", "CT", third, StructureSetDate="20180101")
    assert new != old
    summary = prepare(hospital, tmp_path / "out", roi=["gtv_*=tumour"])
    array, _ = load(summary.subjects[0].scans["ct"].label)
    assert (array == summary.structures["liver"]).sum() == 3 * 16
    # regions of different names that are one structure are joined, from several objects too
    assert (array == summary.structures["tumour"]).sum() == 2 * 12
    told = [message.partition(": ")[2] for message in messages(summary)]
    assert told == [
        "liver: drawn again in a newer object, which counts",
        "tumour: several regions are joined",
    ]
    rows = [row for row in table(tmp_path / "out" / "qa.csv") if row["modality"] == "rtstruct"]
    assert [row["structures"] for row in rows] == ["tumour", "tumour", "liver"]


def test_files_without_a_patient_id_are_a_person_by_study(hospital, tmp_path):
    hospital.patient("", ["CT", "PT"], folder="a", StudyInstanceUID="1.7", FrameOfReferenceUID="1.70")
    hospital.patient("", ["CT", "PT"], folder="b", StudyInstanceUID="1.8", FrameOfReferenceUID="1.80")
    summary = prepare(hospital, tmp_path / "out")
    assert [sorted(s.scans) for s in summary.subjects] == [["ct", "pet"], ["ct", "pet"]]
    assert len({s.id for s in summary.subjects}) == 2


def test_series_without_a_frame_of_reference_are_no_pair(hospital, tmp_path):
    hospital.patient("Ann", ["CT", "PT"], FrameOfReferenceUID=None)
    summary = prepare(hospital, tmp_path / "out")
    assert sorted(sorted(s.scans) for s in summary.subjects) == [["ct"], ["pet"]]
    assert "series without a frame of reference" in messages(summary)[0]


def test_a_copy_of_a_label_object_is_told(hospital, tmp_path):
    hospital.patient("Ann", ["CT"])
    path = hospital.contours("Ann", "CT", {"Liver": (0.0, 7.0)})
    path.with_name("copy.dcm").write_bytes(path.read_bytes())
    summary = prepare(hospital, tmp_path / "out")
    assert messages(summary) == [": a label object has the UID of another one and is left out"]


def test_a_segmentation_object_and_contours_may_share_a_scan(hospital, tmp_path):
    hospital.patient("Ann", ["CT", "PT"])
    spleen = np.zeros((8, 12, 12), bool)
    spleen[2, 3, 4:6] = True
    hospital.labels.write_seg(hospital.root / "seg.dcm", hospital.files["Ann", "CT"], {"Spleen": spleen})
    hospital.contours("Ann", "CT", {"Liver": (12.0, 3.0)})
    summary = prepare(hospital, tmp_path / "out")
    array, _ = load(summary.subjects[0].scans["ct"].label)
    assert np.argwhere(array == summary.structures["spleen"]).tolist() == [[4, 3, 2], [5, 3, 2]]
    assert (array == summary.structures["liver"]).sum() == 12
    assert messages(summary) == []


def test_a_label_that_names_no_series_goes_by_its_frame_of_reference(hospital, tmp_path):
    hospital.patient("Ann", ["CT", "PT"])
    hospital.patient("Bob", ["CT"])
    hospital.contours("Ann", "PT", {"Liver": (0.0, 7.0)}, refer=False)
    summary = prepare(hospital, tmp_path / "out")
    labelled = [s for s in summary.subjects if s.scans["ct"].label]
    assert ["pet" in s.scans for s in labelled] == [True]
    assert "names no usable series; put onto the ct of its frame of reference" in messages(summary)[0]


def test_a_label_of_nobody_is_left_out_with_a_warning(hospital, tmp_path):
    hospital.patient("Ann", ["CT"])
    hospital.patient("Bob", ["CT"])
    hospital.contours("Bob", "CT", {"Liver": (0.0, 7.0)})
    for path in hospital.files["Bob", "CT"]:
        path.unlink()
    summary = prepare(hospital, tmp_path / "out")
    assert messages(summary) == [": RTSTRUCT fits no scan; left out"]
    assert read_manifest(summary.manifest).structures == {}


def test_a_refused_region_takes_the_label_of_its_scan_with_it(hospital, tmp_path):
    hospital.patient("Ann", ["CT", "PT"])
    hospital.contours("Ann", "PT", {"Liver": (0.0, 7.0)}, kind="POINT")
    hospital.contours("Ann", "CT", {"Liver": (0.0, 7.0)})
    summary = prepare(hospital, tmp_path / "out")
    assert summary.refused
    scans = summary.subjects[0].scans
    # a map without the structure would say that there is none, so PET has no label, not even CT's
    assert (scans["pet"].label, scans["ct"].label.name) == (None, "ct_label.nii.gz")
    assert "liver: ROI has contours of the kind 3 POINT" in messages(summary, "refuse")[0]


def test_a_refused_series_leaves_the_others(hospital, tmp_path):
    hospital.patient("Ann", ["CT", "PT"])
    hospital.contours("Ann", "PT", {"Liver": (0.0, 7.0)})
    hospital.files["Ann", "PT"][3].unlink()
    summary = prepare(hospital, tmp_path / "out")
    assert summary.refused
    assert [sorted(s.scans) for s in summary.subjects] == [["ct"]]
    rows = {row["modality"]: row for row in table(tmp_path / "out" / "qa.csv")}
    assert (rows["ct"]["verdict"], rows["pet"]["verdict"]) == ("pass", "refuse")
    assert rows["pet"]["reason"]
    assert "the pet it was drawn on was refused" in rows["rtstruct"]["reason"]


def test_nobody_usable_leaves_no_manifest(hospital, tmp_path):
    hospital.patient("Ann", ["CT"])
    out = tmp_path / "out"
    assert prepare(hospital, out).manifest == out / "subjects.csv"
    hospital.files["Ann", "CT"][3].unlink()
    summary = prepare(hospital, out)
    assert summary.manifest is None
    assert summary.refused
    assert not list(out.glob("subjects.*"))
    assert not list(out.glob("*/*.nii.gz"))


def test_scans_that_share_no_place_are_refused(hospital, tmp_path):
    hospital.patient("Ann", ["CT"])
    far = {"positions": np.array([[-22.0, -22.0, 900.0 + 3 * k] for k in range(8)])}
    hospital.patient("Ann", ["PT"], **far)
    summary = prepare(hospital, tmp_path / "out")
    assert summary.manifest is None
    assert "share no place in patient space" in messages(summary, "refuse")[0]


@pytest.mark.parametrize("inside", ["", "deep/er"])
def test_out_inside_root_is_refused(hospital, inside):
    hospital.patient("Ann", ["CT"])
    with pytest.raises(UserError, match="OUT lies inside ROOT"):
        prepare(hospital, hospital.root / inside)


def test_no_scan_at_all_is_refused(hospital, tmp_path):
    hospital.patient("Ann", ["CT"], Modality="US")
    with pytest.raises(UserError, match="no CT, PET or MR series"):
        prepare(hospital, tmp_path / "out")


def test_nothing_written_names_anybody(hospital, tmp_path):
    hospital.patient("Plantedid77", ["CT", "PT", "MR"], folder="Plantedfolder")
    hospital.contours("Plantedid77", "CT", {"Liver": (0.0, 7.0), "Plantedroi": (12.0, 3.0)})
    hospital.contours("Plantedid77", "PT", {"Plantedtumour": (12.0, 3.0)}, kind="POINT")
    # findings of every kind: a refused series, a refused label, several series
    hospital.files["Plantedid77", "MR"][3].unlink()
    hospital.patient("Plantedid77", ["CT"], folder="Plantedfolder2", count=6)
    out = tmp_path / "out"
    summary = prepare(hospital, out, roi=["Plantedtumour=tumour"])
    assert len(messages(summary, "refuse")) == 2
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in hospital.root.rglob("*.dcm")]
    uids = {
        str(h[k].value) for h in headers for k in ("SeriesInstanceUID", "SOPInstanceUID", "StudyInstanceUID")
    }
    planted = {
        "planted",
        "erika",
        "19610203",
        "20190807",
        "20200102",
        "acc4711",
        "1.2.3.4",
        str(tmp_path).lower(),
    }
    written = [path for path in out.rglob("*") if path.is_file()]
    assert {"ct.nii.gz", "qa.csv", "subjects.csv", "subjects.yaml"} <= {path.name for path in written}
    for path in written:
        content = path.read_bytes()
        content = gzip.decompress(content) + content[:200] if path.suffix == ".gz" else content
        text = (str(path.relative_to(out)) + "\n").encode() + content
        for word in planted | uids:
            assert word.encode() not in text.lower(), (path.name, word)
        if path.suffix == ".gz":
            assert nib.load(path).header["descrip"].item() == b""


def test_messages_about_series_name_no_person(hospital, tmp_path):
    hospital.patient("Plantedid77", ["CT", "PT"], folder="a")
    hospital.patient("Plantedid77", ["CT"], folder="b", count=6)
    for path in hospital.files["Plantedid77", "PT"][3:4]:
        path.unlink()
    told = prepare(hospital, tmp_path / "out").told
    assert {finding.level for _, finding in told} == {"warn", "refuse"}
    for name, finding in told:
        text = f"{name} {finding.what} {finding.where} {finding.expected}".replace(str(tmp_path), "").lower()
        assert "planted" not in text
        assert "1.2.3.4" not in text
