"""`umdseg prepare SOURCE`: a manifest that reads back as the source itself."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from umdseg.cli import main
from umdseg.data.checks import check_subjects
from umdseg.data.manifest import read_manifest
from umdseg.data.prepare.source import prepare_source
from umdseg.data.sources.autopet import AutopetOptions, AutopetSource
from umdseg.errors import UserError


def test_manifest_reads_back_as_the_source(layouts, tmp_path: Path, capsys) -> None:
    options = layouts("autopet", tmp_path / "autopet")
    manifest = prepare_source("autopet", tmp_path / "autopet", None)
    assert manifest == tmp_path / "autopet" / "subjects.csv"
    again, own = read_manifest(manifest), AutopetSource(AutopetOptions(**options)).read(0)
    assert {(s.id, s.split, s.site, s.patient) for s in again.subjects} == {
        (s.id, s.split, s.site, s.patient) for s in own.subjects
    }
    for ours, theirs in zip(again.subjects, own.subjects, strict=True):
        assert ours.scans == theirs.scans
    assert dict(again.structures) == {"tumour": 1}
    assert ",imagesTr/" in manifest.read_text()
    told = capsys.readouterr().err
    for line in (
        "autopet: 7 subjects of 5 patients, 1 structures",
        "split:      test 3, train 4",
        "modalities: ct+pet 7",
        "tracer:     FDG 4, PSMA 3",
        "site:       LMU 3, UKT 4",
        f"umdseg check data=petct data.manifest={manifest}",
    ):
        assert line in told


def test_made_files_come_along(layouts, tmp_path: Path, capsys) -> None:
    layouts("totalsegmentator", tmp_path / "ts")
    given = ["data.structures=[liver,aorta]", f"cache_dir={tmp_path / 'own'}"]
    manifest = prepare_source("totalsegmentator", tmp_path / "ts", tmp_path / "out", given)
    assert manifest == tmp_path / "out" / "subjects.csv"
    dataset = read_manifest(manifest)
    check_subjects(dataset.subjects)
    for subject in dataset.subjects:
        scan = subject.scans["ct"]
        assert scan.image.is_relative_to(tmp_path / "ts")
        assert scan.label == tmp_path / "out" / "made" / f"{subject.id}.nii.gz"
        label = np.asarray(nib.load(scan.label).dataobj)
        assert np.array_equal(label, layouts.volumes.blocks([5, 52]))
    told = capsys.readouterr().err
    assert "no subject has two modalities" in told
    assert "'data.modalities=[ct]' 'data.train_modalities={ct: 1}'" in told


def test_what_is_suggested_trains_on_what_there_is(layouts, tmp_path: Path, capsys) -> None:
    from umdseg.config.check import check

    layouts("amos", tmp_path / "amos")
    prepare_source("amos", tmp_path / "amos", tmp_path / "out")
    command = capsys.readouterr().err.splitlines()[-1]
    settings = check("train", shlex.split(command)[2:])
    assert settings.data.modalities == ["ct", "mr"]
    assert settings.data.train_modalities == {"ct": 1, "mr": 1}


def test_killed_while_files_are_replaced_leaves_no_manifest(layouts, tmp_path: Path, monkeypatch) -> None:
    layouts("enhance_pet", tmp_path / "data")
    prepare_source("enhance_pet", tmp_path / "data", tmp_path / "out", ["groups=[Organs]"])
    copied: list[Path] = []

    def copy(source: Path, target: Path) -> None:
        copied.append(source)
        if len(copied) > 1:
            raise KeyboardInterrupt
        shutil.copyfile(source, target)

    monkeypatch.setattr("umdseg.data.prepare.source.shutil", SimpleNamespace(copyfile=copy))
    with pytest.raises(KeyboardInterrupt):
        prepare_source("enhance_pet", tmp_path / "data", tmp_path / "out", ["groups=[Cardiac]"])
    # the first map has other ids now than the old manifest says
    assert not (tmp_path / "out" / "subjects.csv").exists()


def test_folds_can_be_asked_for(layouts, tmp_path: Path) -> None:
    layouts("synthrad", tmp_path / "data")
    splits = []
    for seed in (0, 0, 3):
        given = ["folds=3", "data.fold=1", f"seed={seed}"]
        dataset = read_manifest(prepare_source("synthrad", tmp_path / "data", tmp_path / "out", given))
        splits.append({s.id: s.split for s in dataset.subjects})
    assert splits[0] == splits[1] != splits[2]


@pytest.mark.parametrize(
    ("name", "overrides", "what", "near"),
    [
        ("amos", ["fold.s=3"], "could not be converted", None),
        ("amos", ["data.flods=3"], "unknown option of data=amos 'flods'", "folds"),
        ("amos", ["root=x"], "unknown option of data=amos 'root'", None),
        ("amos", ["folds=many"], "many", None),
        ("amos", ["folds=1"], "1 is out of range", None),
        ("amos", ["seed=x"], "x", None),
        ("petct", [], "data=petct is a manifest already", None),
        ("phantom", [], "data=phantom is made", None),
    ],
)
def test_options_that_make_no_sense(
    layouts, tmp_path: Path, name: str, overrides: list[str], what: str, near: str | None
) -> None:
    layouts("amos", tmp_path / "amos")
    with pytest.raises(UserError, match=what) as caught:
        prepare_source(name, tmp_path / "amos", None, overrides)
    assert near in (None, caught.value.nearest)
    assert not (tmp_path / "amos" / "subjects.csv").exists()


def test_a_root_that_is_read_only(layouts, tmp_path: Path) -> None:
    root = tmp_path / "amos"
    layouts("amos", root)
    root.chmod(0o555)
    try:
        with pytest.raises(UserError, match="own folder is read-only") as caught:
            prepare_source("amos", root, None)
        assert "umdseg prepare SOURCE ROOT OUT" in caught.value.expected
        with pytest.raises(UserError, match="cannot be written there"):
            prepare_source("amos", root, root / "new")
        assert read_manifest(prepare_source("amos", root, tmp_path / "out")).subjects
    finally:
        root.chmod(0o755)
    assert not (root / "subjects.csv").exists()


def test_command_line_ends_with_the_manifest(layouts, tmp_path: Path, capsys) -> None:
    layouts("umd", tmp_path / "umd")
    assert main(["prepare", "umd", str(tmp_path / "umd"), str(tmp_path / "out"), "folds=2"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(tmp_path / "out" / "subjects.csv")]
    assert "umd: 8 subjects, 13 structures" in captured.err
    assert main(["prepare", "umd", str(tmp_path), str(tmp_path / "out")]) == 1
    assert "no scans found" in capsys.readouterr().err
