"""Datasets made in code, and what is refused before any voxel is read."""

from __future__ import annotations

import itertools
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from umdseg import progress
from umdseg.backbones.card import Intensity
from umdseg.data import cache as cache_room
from umdseg.data.cache import PreparedCache
from umdseg.data.checks import check_subjects
from umdseg.data.dataset import PairedDataset, few_shots
from umdseg.data.preprocess import Preprocessing
from umdseg.data.sources.manifest import ManifestOptions, ManifestSource
from umdseg.errors import UserError


@pytest.fixture
def dataset(paired) -> PairedDataset:
    made = paired({"A": ("ct", "pet"), "B": ("pet",)}, splits={"A": "train"})
    return ManifestSource(ManifestOptions(manifest=str(made.write()))).load(0)


def test_same_id_in_two_splits_is_refused(dataset: PairedDataset) -> None:
    twice = [*dataset.subjects, replace(dataset.subjects[0], split="test")]
    with pytest.raises(UserError, match="subject A appears twice") as caught:
        check_subjects(twice)
    assert "'train' and 'test'" in str(caught.value)
    assert "one split" in caught.value.expected


def test_nobody_is_refused() -> None:
    with pytest.raises(UserError, match="no subjects"):
        check_subjects([])


def test_unknown_split_is_named_with_its_neighbour(dataset: PairedDataset) -> None:
    with pytest.raises(UserError, match="unknown split 'tests'") as caught:
        dataset.of("tests")
    assert caught.value.nearest == "test"


def test_all_structures_unless_some_are_asked_for(dataset: PairedDataset) -> None:
    assert dataset.select(None) == ("liver", "spleen")
    assert dataset.select(["spleen"]) == ("spleen",)


def test_structures_are_known_by_any_of_their_names(dataset: PairedDataset) -> None:
    kidneys = replace(dataset, structures={"kidney_left": 2, "tumour": 1})
    assert kidneys.select(["Tumor", "left kidney"]) == ("tumour", "kidney_left")
    with pytest.raises(UserError, match="'kidney_left' is named twice"):
        kidneys.select(["left kidney", "kidney_left"])
    # a structure of the table that this dataset lacks
    with pytest.raises(UserError, match="unknown structure in dataset 'mine' 'right kidney'") as caught:
        kidneys.select(["right kidney"])
    assert caught.value.where == "data.structures"
    with pytest.raises(UserError, match="the list is empty"):
        kidneys.select([])
    with pytest.raises(UserError, match="names no structures"):
        replace(dataset, structures={}).select(None)


def test_nobody_to_train_on_says_how_to_name_them(paired) -> None:
    dataset = ManifestSource(ManifestOptions(manifest=str(paired({"A": ("ct",)}).write()))).load(0)
    with pytest.raises(UserError, match="in split 'train'") as caught:
        dataset.of("train")
    assert "fill the `split` column of the manifest (train|val|test)" in caught.value.expected
    assert "data.split=all" not in str(caught.value)


def test_a_label_of_another_scan_of_the_subject_is_allowed_others_are_not(dataset: PairedDataset) -> None:
    first, second = dataset.subjects
    ct_label = first.scans["ct"].label

    def with_label(subject, path):
        return replace(subject, scans={**subject.scans, "pet": replace(subject.scans["pet"], label=path)})

    check_subjects([with_label(first, ct_label)])
    # B has no CT, so nothing of B lies on the CT's grid
    with pytest.raises(UserError, match="another grid") as caught:
        check_subjects([with_label(second, ct_label)])
    for named in (ct_label, second.scans["pet"].image, "subject B"):
        assert str(named) in str(caught.value)


def test_hashing_many_files_tells_how_far_it_is(dataset: PairedDataset, monkeypatch, capsys) -> None:
    clock = itertools.count(0, 3.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    dataset.fingerprint()
    # two scans of A, one of B, each with a label
    assert "1/6 files" in capsys.readouterr().err


def test_fingerprint_without_a_root_does_not_know_the_place(dataset: PairedDataset, tmp_path) -> None:
    def at(folder) -> PairedDataset:
        subjects = tuple(
            replace(
                s,
                scans={
                    m: replace(c, image=folder / s.id / c.image.name, label=folder / s.id / c.label.name)
                    for m, c in s.scans.items()
                },
            )
            for s in dataset.subjects
        )
        return PairedDataset("made", subjects, dataset.structures)

    for name in "AB":
        shutil.copytree(tmp_path / name, tmp_path / "moved" / name)
    assert at(tmp_path).fingerprint() == at(tmp_path / "moved").fingerprint()
    assert (
        replace(at(tmp_path), structures={"liver": 1, "spleen": 3}).fingerprint()
        != at(tmp_path).fingerprint()
    )


def test_fingerprint_tells_whose_subjects_are_and_what_their_labels_know(dataset: PairedDataset) -> None:
    first, *others = dataset.subjects
    told = [
        first,
        replace(first, patient="p"),
        replace(first, patient="q"),
        replace(first, annotated=("liver",)),
    ]
    made = {replace(dataset, subjects=(one, *others)).fingerprint() for one in told}
    assert len(made) == 4


def test_two_processes_may_prepare_the_same_scan(dataset: PairedDataset, monkeypatch) -> None:
    both = threading.Barrier(2, timeout=30)
    read = cache_room.read_image

    def together(*arguments):
        both.wait()
        return read(*arguments)

    monkeypatch.setattr(cache_room, "read_image", together)
    card = Preprocessing((4, 4, 4), {"pet": Intensity("window", 0.0, 10.0)}, None, (1, 1, 1))
    scan = dataset.subjects[1].scans["pet"]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(PreparedCache().get, scan, "B", card, [3, 1], [3, 1]) for _ in range(2)]
        first, second = [job.result() for job in jobs]
    assert first.folder == second.folder
    assert (first.image[:] == second.image[:]).all()
    assert [p for p in first.folder.parent.iterdir()] == [first.folder]


def test_a_shot_is_somebody_with_a_label(dataset: PairedDataset) -> None:
    labelled = dataset.subjects[0]
    bare = {m: replace(scan, label=None) for m, scan in labelled.scans.items()}
    crowd = [replace(labelled, id=f"bare{i}", scans=bare) for i in range(9)]
    assert all(
        few_shots([*crowd, labelled], 1, seed, {"ct": 1.0, "pet": 1.0}) == [labelled] for seed in range(20)
    )
    assert len(few_shots(crowd, 3, 0, {"ct": 1.0})) == 3
