"""Datasets made in code, and what is refused before any voxel is read."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from umdseg.data import cache as cache_room
from umdseg.data.cache import PreparedCache
from umdseg.data.checks import check_subjects
from umdseg.data.dataset import PairedDataset
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


def test_two_processes_may_prepare_the_same_scan(dataset: PairedDataset, monkeypatch) -> None:
    both = threading.Barrier(2, timeout=30)
    read = cache_room.read_image

    def together(*arguments):
        both.wait()
        return read(*arguments)

    monkeypatch.setattr(cache_room, "read_image", together)
    card = Preprocessing((4, 4, 4), {"pet": _Window()}, None, (1, 1, 1))
    scan = dataset.subjects[1].scans["pet"]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(PreparedCache().get, scan, "B", card, [3, 1], [3, 1]) for _ in range(2)]
        first, second = [job.result() for job in jobs]
    assert first.folder == second.folder
    assert (first.image() == second.image()).all()
    assert [p for p in first.folder.parent.iterdir()] == [first.folder]


class _Window:
    kind, low, high = "window", 0.0, 10.0
