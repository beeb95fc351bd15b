"""Manifests: what is read, and one clear error for each way to break one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from umdseg.data.cache import PreparedCache
from umdseg.data.io.nifti import read_image, read_label
from umdseg.data.manifest import read_manifest, write_manifest
from umdseg.data.preprocess import Preprocessing
from umdseg.data.sources.manifest import ManifestOptions, ManifestSource
from umdseg.errors import UserError


def load(csv: Path, name: str = "petct", **options):
    return ManifestSource(ManifestOptions(name=name, manifest=str(csv), **options)).load(seed=0)


def refused(csv: Path, *parts: object) -> UserError:
    with pytest.raises(UserError) as caught:
        load(csv)
    for part in parts:
        assert str(part) in str(caught.value)
    assert caught.value.expected
    return caught.value


def test_a_manifest_is_read(paired: Callable) -> None:
    made = paired({"A": ("ct", "pet"), "B b": ("pet",)}, splits={"A": "train"})
    dataset = load(made.write())
    first, second = dataset.subjects
    assert dataset.name == "mine"
    assert dict(dataset.structures) == {"liver": 3, "spleen": 1}
    assert (first.id, first.split, first.site, first.dataset) == ("A", "train", "here", "mine")
    assert set(first.scans) == {"ct", "pet"}
    assert first.reference() == "ct"
    assert first.scans["pet"].units == "SUV"
    assert first.scans["pet"].tracer_or_sequence == "FDG"
    # a subject that lacks a modality is a subject, not an error
    assert (second.id, set(second.scans), second.reference()) == ("B b", {"pet"}, "pet")
    assert [s.id for s in dataset.of("train")] == ["A"]
    assert len(dataset.of("all")) == 2


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_excel_spellings_are_read(paired: Callable, delimiter: str) -> None:
    made = paired({"A": ("ct", "pet")})
    text = made.write().read_text().replace(",", delimiter).replace("\n", "\r\n")
    made.csv.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n;;;\r\n".replace(b";", delimiter.encode()))
    assert set(load(made.csv).subjects[0].scans) == {"ct", "pet"}


def test_written_manifest_reads_back_from_another_place(paired: Callable, tmp_path: Path) -> None:
    dataset = load(paired({"A": ("ct", "pet"), "B": ("mr",)}, splits={"B": "val"}).write())
    write_manifest(dataset, tmp_path / "elsewhere" / "again.csv")
    again = read_manifest(tmp_path / "elsewhere" / "again.csv")
    assert again.name == "mine"
    assert again.structures == dataset.structures
    for old, new in zip(dataset.subjects, again.subjects, strict=True):
        assert (old.id, old.split, old.site) == (new.id, new.split, new.site)
        for modality, scan in old.scans.items():
            assert new.scans[modality].image.samefile(scan.image)
            assert new.scans[modality].label.samefile(scan.label)
            assert new.scans[modality].tracer_or_sequence == scan.tracer_or_sequence


def test_labels_and_splits_may_be_left_out(paired: Callable) -> None:
    made = paired({"A": ("ct",)})
    made.csv.write_text("subject,modality,image\nA,ct,A/ct_image.nii.gz\n")
    dataset = load(made.csv)
    assert dataset.subjects[0].scans["ct"].label is None
    assert dataset.of("all")[0].split == ""
    with pytest.raises(UserError, match="in split 'test'") as caught:
        dataset.of("test")
    assert "data.split=all" in caught.value.expected


def test_without_a_manifest_it_says_what_to_give() -> None:
    for name in ("petct", "petmri"):
        with pytest.raises(UserError) as caught:
            ManifestSource(ManifestOptions(name=name)).load(seed=0)
        text = str(caught.value)
        assert f"python train.py data={name} data.manifest=subjects.csv" in text
        assert "subject,modality,image,label,units,tracer_or_sequence,split,site" in text
        assert "structures: {liver: 1" in text


def test_names_stand_for_pairs() -> None:
    assert ManifestOptions(name="petct").modalities == ["ct", "pet"]
    assert ManifestOptions(name="petmri").modalities == ["mr", "pet"]
    assert ManifestOptions(name="petmri", modalities=["pet"]).modalities == ["pet"]
    assert set(ManifestOptions(name="petct").train_modalities) == {"ct", "pet"}


def test_missing_manifest(tmp_path: Path) -> None:
    refused(tmp_path / "no.csv", tmp_path / "no.csv", "subject,modality,image")


@pytest.mark.parametrize("kind", ["image", "label"])
def test_deleted_file(paired: Callable, kind: str) -> None:
    made = paired({"A": ("ct", "pet"), "B": ("ct", "pet")})
    made.write()
    made.file("B", "pet", kind).unlink()
    # header is line 1, A has 2 and 3, B's PET is line 5
    refused(made.csv, f"{kind} of subject B is missing", made.file("B", "pet", kind), "line 5")


def test_flipped_affine_on_a_label(paired: Callable) -> None:
    made = paired({"A": ("ct", "pet")})
    path = made.file("A", "ct", "label")
    stored = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(stored.dataobj), stored.affine @ np.diag([-1, 1, 1, 1])), path)
    refused(
        made.write(), path, made.file("A", "ct"), "subject A", "axes LPS", "axes RPS", "same shape and affine"
    )


def test_flipped_affine_on_an_image(paired: Callable) -> None:
    made = paired({"A": ("ct", "pet")})
    path = made.file("A", "pet")
    stored = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(stored.dataobj), np.diag([-1, 1, 1, 1]) @ stored.affine), path)
    refused(made.write(), path, made.file("A", "pet", "label"), "subject A", "another grid")


def test_scans_that_do_not_meet_in_patient_space(paired: Callable) -> None:
    made = paired({"A": ("ct", "pet")})
    for kind in ("image", "label"):
        path = made.file("A", "pet", kind)
        stored = nib.load(path)
        affine = stored.affine.copy()
        affine[2, 3] += 1000
        nib.save(nib.Nifti1Image(np.asarray(stored.dataobj), affine), path)
    refused(made.write(), "scans of subject A share no place", made.file("A", "ct"), made.file("A", "pet"))


def test_unknown_organ_is_named_with_its_neighbour(paired: Callable) -> None:
    made = paired({"A": ("ct", "pet")})
    made.structures = "structures: {livver: 3, spleen: 1}\n"
    error = refused(made.write(), "unknown structure 'livver'", made.folder / "mine.yaml")
    assert error.nearest == "liver"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("structures: {1: liver}", "not a name with an id"),
        ("structures: {liver: one}", "not a name with an id"),
        ("structures: {liver: 1, spleen: 1}", "id 1 is given to both"),
        ("structures: {left kidney: 1, kidney_left: 2}", "named twice"),
        ("structures: {liver: 0}", "has id 0"),
        ("organs: {liver: 1}", "no structures are named"),
        ("structures: {liver: [", "not readable as YAML"),
    ],
)
def test_bad_structures_file(paired: Callable, text: str, said: str) -> None:
    made = paired({"A": ("ct", "pet")})
    made.structures = text
    refused(made.write(), said, made.folder / "mine.yaml")


def test_missing_structures_file(paired: Callable) -> None:
    made = paired({"A": ("ct",)})
    made.write()
    (made.folder / "mine.yaml").unlink()
    refused(made.csv, "naming the structures", made.folder / "mine.yaml", "structures: {liver: 1")


def test_structures_file_may_lie_elsewhere(paired: Callable, tmp_path: Path) -> None:
    made = paired({"A": ("ct",)})
    made.write()
    shutil.move(made.folder / "mine.yaml", tmp_path / "organs.yaml")
    assert "liver" in load(made.csv, structures_file=str(tmp_path / "organs.yaml")).structures


def test_subject_in_two_splits(paired: Callable) -> None:
    made = paired({"A": ("ct", "pet"), "B": ("ct",)})
    made.rows[1] = made.rows[1].replace(",test,", ",train,")
    refused(made.write(), "subject A is in two splits: 'test' and 'train'", made.csv, "lines 2 and 3")


def test_subject_of_two_patients(paired: Callable) -> None:
    made = paired({"A": ("ct", "pet")})
    made.write()
    header, ct, pet = made.csv.read_text().splitlines()
    made.csv.write_text("\n".join([f"{header},patient", f"{ct},", f"{pet},X"]))
    assert load(made.csv).subjects[0].patient == "X"
    made.csv.write_text("\n".join([f"{header},patient", f"{ct},Y", f"{pet},X"]))
    refused(made.csv, "subject A is of two patients: 'Y' and 'X'", "line 3")


def test_what_labels_tell_about_is_read_in_any_spelling_and_written_again(
    paired: Callable, tmp_path: Path
) -> None:
    made = paired({"A": ("ct", "pet"), "B": ("ct",)})
    made.write()
    header, ct, pet, other = made.csv.read_text().splitlines()
    made.csv.write_text("\n".join([f"{header},annotated", f"{ct},", f"{pet},Spleen", f"{other},"]))
    dataset = load(made.csv)
    assert [subject.annotated for subject in dataset.subjects] == [("spleen",), None]
    write_manifest(dataset, tmp_path / "again.csv")
    again = read_manifest(tmp_path / "again.csv")
    assert [subject.annotated for subject in again.subjects] == [("spleen",), None]
    made.csv.write_text("\n".join([f"{header},annotated", f"{ct},liver + spleen", f"{pet},", f"{other},"]))
    assert load(made.csv).subjects[0].annotated == ("liver", "spleen")


def test_labels_that_tell_about_something_else_are_refused(paired: Callable) -> None:
    made = paired({"A": ("ct", "pet")})
    made.write()
    header, ct, pet = made.csv.read_text().splitlines()
    made.csv.write_text("\n".join([f"{header},annotated", f"{ct},liver", f"{pet},spleen"]))
    refused(made.csv, "subject A has two lists of annotated structures: 'liver' and 'spleen'", "line 3")
    made.csv.write_text("\n".join([f"{header},annotated", f"{ct},liver+splen", f"{pet},"]))
    refused(made.csv, "unknown annotated structure 'splen'", "line 2 (subject A)", "did you mean: spleen")
    # a structure that exists, but not in these labels
    made.csv.write_text("\n".join([f"{header},annotated", f"{ct},heart", f"{pet},"]))
    refused(made.csv, "unknown annotated structure 'heart'")
    made.csv.write_text("\n".join([f"{header},anotated", f"{ct},liver", f"{pet},"]))
    refused(made.csv, "unknown column 'anotated'", "did you mean: annotated")


def test_two_scans_of_one_modality(paired: Callable) -> None:
    made = paired({"A": ("ct", "pet")})
    made.rows.append(made.rows[0])
    refused(made.write(), "subject A has two ct scans", "lines 2 and 4")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("A,pet", "A,petct", "unknown modality 'petct'"),
        (",test,", ",tset,", "unknown split 'tset'"),
        (",SUV,", ",Bq/ml,", "units 'Bq/ml' for pet"),
        (",SUV,", ",HU,", "units 'HU' for pet"),
        ("A,pet", ",pet", "'subject' is empty"),
        ("A,pet", "../A,pet", "subject '../A' cannot be a folder's name"),
        (",here", ",here,there", "line has 9 cells"),
    ],
)
def test_bad_row(paired: Callable, old: str, new: str, said: str) -> None:
    made = paired({"A": ("ct", "pet")})
    made.rows[1] = made.rows[1].replace(old, new)
    refused(made.write(), said, made.csv, "line 3")


def test_bad_header(paired: Callable) -> None:
    made = paired({"A": ("ct", "pet")})
    text = made.write().read_text()
    made.csv.write_text(text.replace("modality", "modalty", 1))
    assert refused(made.csv, "unknown column 'modalty'", "header").nearest == "modality"
    made.csv.write_text(text.replace(",modality", "", 1))
    refused(made.csv, "column 'modality' is missing")


def test_empty_manifest_and_manifest_that_is_not_text(paired: Callable) -> None:
    made = paired({"A": ("ct",)})
    made.write()
    made.csv.write_text("subject,modality,image\n")
    refused(made.csv, "no rows")
    made.csv.write_bytes("subject,modality,image\nM\u00fcller,ct,x.nii\n".encode("latin-1"))
    refused(made.csv, "not UTF-8", made.csv)


def test_unknown_id_in_a_label_names_file_subject_and_ids(paired: Callable) -> None:
    made = paired({"A": ("ct",)})
    made.structures = "structures: {liver: 3}\n"
    dataset = load(made.write())
    scan = dataset.subjects[0].scans["ct"]
    grid = read_image(scan.image).grid
    with pytest.raises(UserError, match="no structure has: 1") as caught:
        read_label(scan.label, grid, dataset.structures.values(), "A")
    assert str(scan.label) in str(caught.value)
    assert "subject A" in str(caught.value)
    assert "found 0, 1, 3" in caught.value.expected


def test_nan_is_found_when_a_scan_is_prepared(paired: Callable) -> None:
    made = paired({"A": ("ct",)})
    path = made.file("A", "ct")
    stored = nib.load(path)
    array = np.asarray(stored.dataobj).copy()
    array[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(array, stored.affine), path)
    subject = load(made.write()).subjects[0]  # headers are fine
    with pytest.raises(UserError, match="NaN") as caught:
        PreparedCache().get(
            subject.scans["ct"], "A", Preprocessing((4, 4, 4), {}, None, (1, 1, 1)), [3], [1, 3]
        )
    assert str(path) in str(caught.value)
    assert "subject A" in str(caught.value)


def test_fingerprint_follows_content_not_place(paired: Callable, tmp_path: Path) -> None:
    made = paired({"A": ("ct", "pet")})
    dataset = load(made.write())
    before = dataset.fingerprint()
    assert len(before) == 64
    shutil.copytree(made.folder / "A", tmp_path / "copy" / "A")
    for name in ("mine.csv", "mine.yaml"):
        shutil.copy(made.folder / name, tmp_path / "copy" / name)
    assert load(tmp_path / "copy" / "mine.csv").fingerprint() == before

    path = made.file("A", "pet", "label")
    stored = nib.load(path)
    array = np.asarray(stored.dataobj).copy()
    array[0, 0, 0] = 3
    nib.save(nib.Nifti1Image(array, stored.affine), path)
    changed = load(made.csv).fingerprint()
    assert changed != before
    made.rows[0] = made.rows[0].replace(",test,", ",train,")
    made.rows[1] = made.rows[1].replace(",test,", ",train,")
    assert load(made.write()).fingerprint() not in (before, changed)
