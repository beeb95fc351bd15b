"""`umdseg prepare` as a user calls it: exit status, streams, real data to a manifest that reads."""

from __future__ import annotations

import shutil
import sys
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from umdseg.cli import main
from umdseg.data.checks import check_subjects
from umdseg.data.manifest import read_manifest


@pytest.fixture(autouse=True)
def _key(tmp_path, monkeypatch):
    monkeypatch.setenv("UMDSEG_KEY_FILE", str(tmp_path / "pseudonym.key"))


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setitem(sys.modules, "umdseg.data.qc", SimpleNamespace(picture=lambda *_: None))


def test_a_real_patient_goes_from_dicom_to_a_manifest(shared_data, tmp_path, capsys):
    base, root, out = shared_data / "sts_pet_ct_mr", tmp_path / "scanner", tmp_path / "out"
    shutil.copytree(base / "dicom" / "STS_002", root / "STS_002")
    assert main(["prepare", "dicom", str(root), str(out), "--roi", "GTV_Mass*=tumour"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out / 'subjects.csv'}\n"
    dataset = read_manifest(out / "subjects.csv")
    check_subjects(dataset.subjects)
    assert dataset.structures == {"tumour": 1}
    (subject,) = dataset.subjects
    assert f"umdseg check data=petct data.manifest={out / 'subjects.csv'}" in printed.err
    assert "STS_002" not in printed.err.replace(str(root), "")
    published = {"ct": ("CT", 1e-3), "pet": ("PET", 1e-3), "mr": ("MR_T1", 1e-2)}
    for modality, (stem, rounding) in published.items():
        scan = subject.scans[modality]
        wanted = nib.load(base / "nifti" / "STS_002" / f"{stem}_image.nii.gz")
        image = nib.load(scan.image)
        assert np.allclose(image.affine, wanted.affine, atol=1e-2)
        assert np.abs(image.get_fdata() - wanted.get_fdata()).max() <= rounding
        mask = nib.load(base / "nifti" / "STS_002" / f"{stem}_mask.nii.gz").get_fdata() > 0
        label = nib.load(scan.label).get_fdata() == 1
        assert 2 * (mask & label).sum() / (mask.sum() + label.sum()) >= 0.99
    assert subject.scans["pet"].tracer_or_sequence == "FDG"
    assert subject.scans["mr"].tracer_or_sequence == "T1"
    assert (out / "qc" / f"{subject.id}.png").read_bytes()[:4] == b"\x89PNG"
    held = b"".join(path.read_bytes() for path in out.rglob("*") if path.suffix != ".gz" and path.is_file())
    assert b"STS_002" not in held


@pytest.mark.usefixtures("no_pictures")
def test_a_refusal_is_status_1_and_tells_what_to_do(dicom, tmp_path, capsys):
    root, out = tmp_path / "scanner", tmp_path / "out"
    stored = np.full((8, 12, 12), 24, np.int16)
    stored[:, 2:10, 2:10] = 1064
    ct = dicom.write_series(root / "ct", "CT", stored=stored)
    assert main(["prepare", "dicom", str(root), str(out)]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(out / "subjects.csv")]
    assert "no subject has a PET/CT or PET/MR pair" in told.err
    ct[3].unlink()
    assert main(["prepare", "dicom", str(root), str(out)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert any(line.startswith("refuse: sub-") and "/ct1: " in line for line in lines)
    table = next(i for i, line in enumerate(lines) if line.split()[:2] == ["subject", "ct"])
    assert lines[table + 1].split()[1:] == ["refuse", "-", "-", "-"]
    assert "0 subjects (0 kept from an earlier run)" in told.err
    assert "mend what was refused above" in told.err


def test_a_mistake_is_one_screen_without_a_traceback(tmp_path, capsys):
    assert main(["prepare", "dicom", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("folder is missing")
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_an_unknown_source_has_a_nearest_one(tmp_path, capsys):
    assert main(["prepare", "dicm", str(tmp_path)]) == 1
    assert "did you mean: dicom" in capsys.readouterr().err
    assert main(["prepare", "st", str(tmp_path)]) == 1
    assert "did you mean: sts" in capsys.readouterr().err


def test_a_registered_source_gets_its_folder_and_options(tmp_path, capsys, monkeypatch):
    seen = []

    def prepare_source(*arguments):
        seen.append(arguments)
        return tmp_path / "subjects.csv"

    monkeypatch.setitem(
        sys.modules, "umdseg.data.prepare.source", SimpleNamespace(prepare_source=prepare_source)
    )
    assert main(["prepare", "sts", "root", "--qc", "out", "data.folds=5"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'subjects.csv'}\n"
    assert main(["prepare", "sts", "root", "fold=1"]) == 0
    (name, root, out, options, qc), second = seen
    assert (name, str(root), str(out), options, qc) == ("sts", "root", "out", ["data.folds=5"], True)
    assert second[2:] == (None, ["fold=1"], False)
    assert main(["prepare", "sts", "root", "a", "b"]) == 1
    assert "more than one OUT: a, b" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"), [(["dicom"], "--keep-ids"), ([], "umdseg prepare dicom --help")]
)
def test_help(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["prepare", *arguments, "--help"])
    assert stopped.value.code == 0
    assert words in capsys.readouterr().out
