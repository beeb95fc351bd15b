"""AMOS: published parts, modality by id, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from umdseg.data.sources.amos import AmosOptions, AmosSource
from umdseg.errors import UserError


@pytest.fixture
def root(layouts, tmp_path: Path) -> Path:
    layouts("amos", tmp_path / "amos22")
    return tmp_path / "amos22"


def read(root: Path, **options):
    return AmosSource(AmosOptions(root=str(root), **options)).read(0)


def test_parts_and_modalities(root: Path) -> None:
    dataset = read(root)
    assert {s.id: (s.split, *s.scans) for s in dataset.subjects} == {
        "amos_0001": ("train", "ct"),
        "amos_0004": ("train", "ct"),
        "amos_0507": ("train", "mr"),
        "amos_0600": ("train", "mr"),
        "amos_0008": ("test", "ct"),
        "amos_0541": ("test", "mr"),
    }


def test_hidden_test_labels_are_told(root: Path, capsys) -> None:
    AmosSource(AmosOptions(root=str(root))).load(0)
    assert "1 images of imagesTs have no public label" in capsys.readouterr().err
    (root / "labelsTs").mkdir()
    shutil.copy(root / "labelsVa" / "amos_0008.nii.gz", root / "labelsTs" / "amos_0003.nii.gz")
    splits = {s.id: s.split for s in read(root).subjects}
    assert (splits["amos_0003"], splits["amos_0008"]) == ("test", "val")


def test_missing_labels_are_counted(root: Path) -> None:
    (root / "labelsTr" / "amos_0004.nii.gz").unlink()
    with pytest.raises(UserError, match="1 of 4 images have no label in labelsTr: amos_0004"):
        read(root)
    (root / "imagesTr" / "amos_0004.nii.gz").unlink()
    (root / "imagesTr" / "amos_0001.nii.gz").unlink()
    with pytest.raises(UserError, match="1 of 3 labels have no image in imagesTr: amos_0001"):
        read(root)


def test_unexpected_names_are_counted(root: Path) -> None:
    (root / "imagesTr" / "amos_0001.nii.gz").rename(root / "imagesTr" / "case1.nii.gz")
    with pytest.raises(UserError, match="1 of 4 files have unexpected names: case1") as caught:
        read(root)
    assert "amos_0001.nii.gz" in caught.value.expected


def test_a_subject_in_two_folders(root: Path) -> None:
    for kind in ("images", "labels"):
        shutil.copy(root / f"{kind}Tr" / "amos_0001.nii.gz", root / f"{kind}Va")
    with pytest.raises(UserError, match="subject amos_0001 is in two folders") as caught:
        read(root)
    assert str(root / "imagesTr") in caught.value.where
    assert str(root / "imagesVa") in caught.value.where


def test_a_root_some_levels_off_is_suggested(root: Path, tmp_path: Path) -> None:
    # two folders of its own above it: those of other tests hold the same data set
    deep = root.rename(_made(tmp_path / "lab" / "data") / "amos22")
    for given in (deep.parent, deep.parent.parent, deep / "imagesTr"):
        with pytest.raises(UserError, match="not in this folder") as caught:
            read(given)
        assert caught.value.nearest == f"data.root={deep}"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
