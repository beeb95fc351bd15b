"""A killed `prepare` leaves nothing that a later run trusts; finished subjects are kept."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from umdseg.data.manifest import read_manifest
from umdseg.data.prepare.dicom import DicomOptions, prepare_dicom
from umdseg.data.prepare.records import RECORD


def killed(root: Path, out: Path, after: int) -> bool:
    """Prepare in a process of its own that dies at the call `after` of those that write, move or delete."""
    process = os.fork()
    if process == 0:
        left = after

        def until(function):
            def counted(*arguments, **more):
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **more)

            return counted

        os.replace = until(os.replace)
        for name in ("rename", "unlink", "mkdir"):
            setattr(Path, name, until(getattr(Path, name)))
        status = 1
        try:
            prepare_dicom(root, out, DicomOptions())
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(process, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0


def content(out: Path) -> dict[str, object]:
    """Everything in OUT that a run wrote: voxels of images, text of the rest."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(path.relative_to(out))
        if path.suffix == ".gz":
            found[name] = np.asarray(nib.load(path).dataobj).tobytes()
        elif path.name != RECORD:  # holds sizes, and a compressed size depends on the hour
            found[name] = path.read_bytes()
    return found


@pytest.fixture
def cohort(hospital):
    for name in ("Ann", "Bob"):
        hospital.patient(name, ["CT", "PT"])
        hospital.contours(name, "CT", {"Liver": (0.0, 7.0)})
    return hospital.root


@pytest.mark.usefixtures("no_pictures")
def test_a_run_killed_anywhere_is_finished_by_the_next(cohort, tmp_path):
    whole = tmp_path / "out"
    prepare_dicom(cohort, whole, DicomOptions())
    wanted = content(whole)
    for after in range(0, 1000, 3):
        broken = tmp_path / f"killed{after}" / "out"
        if not killed(cohort, broken, after):
            break
        assert not (broken / "subjects.csv").exists() or content(broken) == wanted
        summary = prepare_dicom(cohort, broken, DicomOptions())
        assert not summary.refused
        assert content(broken) == wanted
        assert not list(broken.glob(".*"))
    # at least three images and labels, and the folder, of two subjects, the manifest, the verdicts
    assert after > 2 * 4 + 3


@pytest.mark.usefixtures("no_pictures")
def test_a_rerun_that_is_killed_leaves_no_old_manifest(cohort, hospital, tmp_path):
    out = tmp_path / "out"
    prepare_dicom(cohort, out, DicomOptions())
    hospital.contours("Bob", "PT", {"Spleen": (0.0, 7.0)})
    for after in (6, 12):
        assert killed(cohort, out, after)
        assert not (out / "subjects.csv").exists()
    summary = prepare_dicom(cohort, out, DicomOptions())
    fresh = prepare_dicom(cohort, tmp_path / "fresh" / "out", DicomOptions())
    assert summary.structures == fresh.structures == {"liver": 1, "spleen": 2}
    assert content(out) == content(tmp_path / "fresh" / "out")


@pytest.mark.usefixtures("no_pictures")
def test_finished_subjects_are_kept_and_changed_ones_made_again(cohort, hospital, tmp_path):
    out = tmp_path / "out"
    first = prepare_dicom(cohort, out, DicomOptions())
    times = {p: p.stat().st_mtime_ns for p in out.glob("sub-*/*")}
    again = prepare_dicom(cohort, out, DicomOptions())
    assert (first.kept, again.kept) == (0, 2)
    assert {p: p.stat().st_mtime_ns for p in out.glob("sub-*/*")} == times
    assert again.rows == first.rows
    # one voxel of one slice
    path = hospital.files["Bob", "CT"][2]
    raw = bytearray(path.read_bytes())
    raw[-2:] = (999).to_bytes(2, "little")
    path.write_bytes(bytes(raw))
    third = prepare_dicom(cohort, out, DicomOptions())
    assert third.kept == 1
    changed = {p.parent.name for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert len(changed) == 1
    image = nib.load(next(s for s in third.subjects if s.id in changed).scans["ct"].image)
    assert np.asarray(image.dataobj)[11, 11, 2] == 999 - 1024


@pytest.mark.parametrize("damage", ["gone", "short"])
@pytest.mark.usefixtures("no_pictures")
def test_a_finished_subject_that_lost_something_is_made_again(cohort, tmp_path, damage):
    out = tmp_path / "out"
    first = prepare_dicom(cohort, out, DicomOptions())
    victim = first.subjects[0].scans["pet"].image
    whole = np.asarray(nib.load(victim).dataobj).copy()
    victim.unlink() if damage == "gone" else victim.write_bytes(victim.read_bytes()[:-9])
    assert prepare_dicom(cohort, out, DicomOptions()).kept == 1
    assert (np.asarray(nib.load(victim).dataobj) == whole).all()


@pytest.mark.usefixtures("no_pictures")
def test_warnings_and_refusals_of_kept_subjects_are_told_again(cohort, hospital, tmp_path):
    hospital.files["Ann", "PT"][3].unlink()
    first = prepare_dicom(cohort, tmp_path / "out", DicomOptions())
    again = prepare_dicom(cohort, tmp_path / "out", DicomOptions())
    assert again.kept == 2
    assert first.refused
    assert again.refused
    told = [[(name, f.level, f.what) for name, f in summary.told] for summary in (first, again)]
    assert told[0] == told[1]


@pytest.mark.usefixtures("no_pictures")
def test_subjects_of_another_root_are_told_and_left_out(cohort, hospital, tmp_path):
    out = tmp_path / "out"
    prepare_dicom(cohort, out, DicomOptions())
    for path in hospital.files["Bob", "CT"] + hospital.files["Bob", "PT"] + hospital.files["Bob", "RT-CT"]:
        path.unlink()
    summary = prepare_dicom(cohort, out, DicomOptions())
    assert [f.what for _, f in summary.told] == [
        "1 folders in OUT belong to no subject of ROOT; the manifest leaves them out"
    ]
    assert len(read_manifest(out / "subjects.csv").subjects) == 1
