"""data=phantom as a dataset: splits, cache, populations, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from umdseg.data.io.nifti import read_image, read_label
from umdseg.data.sources.phantom import PhantomOptions, PhantomSource
from umdseg.errors import UserError


def _options(cache: Path, **more: object) -> PhantomOptions:
    options = PhantomOptions(train=1, test=1, modalities=["pet"], cache_dir=str(cache))
    options.train_modalities = {"pet": 1.0, "ct": 0.0}
    for key, value in more.items():
        setattr(options, key, value)
    return options


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phantoms")


def test_only_what_is_asked_for_is_rendered_and_only_once(cache: Path) -> None:
    dataset = PhantomSource(_options(cache)).load(0)
    assert [s.split for s in dataset.subjects] == ["train", "test"]
    files = [s.scans["pet"].image for s in dataset.subjects]
    assert all(set(s.scans) == {"pet"} for s in dataset.subjects)
    before = [path.stat().st_mtime_ns for path in files]
    again = PhantomSource(_options(cache)).load(0)
    assert [s.scans["pet"].image for s in again.subjects] == files
    assert [path.stat().st_mtime_ns for path in files] == before


def test_the_files_pass_the_checks_of_any_data(cache: Path) -> None:
    dataset = PhantomSource(_options(cache)).load(0)
    for subject in dataset.subjects:
        scan = subject.scans["pet"]
        image = read_image(scan.image, subject.id)
        assert scan.label is not None
        label = read_label(scan.label, image.grid, list(dataset.structures.values()), subject.id)
        assert set(dataset.structures.values()) <= set(label.array.ravel().tolist())
        assert min(image.grid.spacing) >= 4.0


def test_other_seeds_and_populations_are_other_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umdseg.data.sources.phantom._render_all", lambda tasks: None)
    people = []
    for seed, population in ((0, "study"), (1, "study"), (0, "pretrain")):
        options = _options(tmp_path, population=population, train=20, test=20)
        dataset = PhantomSource(options).load(seed)
        people.append({s.scans["pet"].image for s in dataset.subjects})
        assert len(people[-1]) == 40
    assert not people[0] & people[1]
    assert not people[0] & people[2]


def test_more_subjects_keep_the_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umdseg.data.sources.phantom._render_all", lambda tasks: None)
    few = PhantomSource(_options(tmp_path, train=2)).load(0).of("train")
    more = PhantomSource(_options(tmp_path, train=5)).load(0).of("train")
    assert [s.scans["pet"].image for s in more[:2]] == [s.scans["pet"].image for s in few]


def test_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.train"):
        PhantomSource(_options(tmp_path, train=0, test=0)).load(0)
    with pytest.raises(UserError, match="-1"):
        PhantomSource(_options(tmp_path, train=-1)).load(0)
