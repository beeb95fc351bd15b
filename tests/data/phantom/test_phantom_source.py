"""data=phantom as a dataset: splits, cache, populations, mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from umdseg.data.io.nifti import read_image, read_label
from umdseg.data.sources.phantom import PhantomOptions, PhantomSource
from umdseg.errors import UserError

Folder = Callable[..., Path]


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
    monkeypatch.setattr("umdseg.data.sources.phantom._render_all", lambda *given: None)
    people = []
    for seed, population in ((0, "study"), (1, "study"), (0, "pretrain")):
        options = _options(tmp_path, population=population, train=20, test=20)
        dataset = PhantomSource(options).load(seed)
        people.append({s.scans["pet"].image for s in dataset.subjects})
        assert len(people[-1]) == 40
    assert not people[0] & people[1]
    assert not people[0] & people[2]


def test_more_subjects_keep_the_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umdseg.data.sources.phantom._render_all", lambda *given: None)
    few = PhantomSource(_options(tmp_path, train=2)).load(0).of("train")
    more = PhantomSource(_options(tmp_path, train=5)).load(0).of("train")
    assert [s.scans["pet"].image for s in more[:2]] == [s.scans["pet"].image for s in few]


def test_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.train"):
        PhantomSource(_options(tmp_path, train=0, test=0)).load(0)
    with pytest.raises(UserError, match="-1"):
        PhantomSource(_options(tmp_path, train=-1)).load(0)


def _on_maps(root: Path, cache: Path, **more: object) -> PhantomSource:
    given = {"labels": str(root), "train": None, "test": None, **more}
    options = _options(cache, **given)
    options.validate()
    return PhantomSource(options)


PEOPLE = (
    *(f"fdg_{i:02d}_study{study}" for i in range(4) for study in ("a", "b")),
    *(f"psma_{i:02d}_2016" for i in range(5)),
)


def test_people_with_maps_are_dealt_once_with_both_tracers(folder: Folder, tmp_path: Path) -> None:
    root = folder(*PEOPLE)
    for seed in range(5):
        dataset = _on_maps(root, tmp_path, copies=2).read(seed)
        split = {s.id: s.split for s in dataset.subjects}
        own = {n: [s for s in split if split[s] == n and "_copy" not in s] for n in ("train", "test")}
        copied = [s for s in split if "_copy" in s]
        assert len(own["train"]) + len(own["test"]) == len(PEOPLE)
        # only training people are copied
        assert sorted(copied) == sorted(f"{name}_copy1" for name in own["train"])
        # studies and copies of one person: one split
        whose: dict[str, set[str]] = {}
        for subject in dataset.subjects:
            whose.setdefault("_".join(subject.id.split("_")[:2]), set()).add(subject.split)
        assert all(len(splits) == 1 for splits in whose.values())
        assert sum(splits == {"test"} for splits in whose.values()) == 3  # a third of 9
        tested = {s.scans["pet"].tracer_or_sequence for s in dataset.of("test")}
        assert tested == {"FDG", "PSMA"}


def test_counts_of_people_are_kept(folder: Folder, tmp_path: Path) -> None:
    root = folder(*PEOPLE)
    dataset = _on_maps(root, tmp_path, train=4, val=1, test=2).read(0)
    people = {n: {s.patient for s in dataset.of(n)} for n in ("train", "val", "test")}
    assert {n: len(p) for n, p in people.items()} == {"train": 4, "val": 1, "test": 2}
    rest = _on_maps(root, tmp_path, train=4).read(0)
    assert len({s.patient for s in rest.of("test")}) == 5
    with pytest.raises(UserError, match="9 have label maps"):
        _on_maps(root, tmp_path, train=8, test=4).read(0)


def test_maps_render_once_and_again_for_other_content(folder: Folder, tmp_path: Path) -> None:
    root = folder("psma_01_x")
    source = _on_maps(root, tmp_path / "cache")
    (subject,) = source.load(0).subjects
    scan = subject.scans["pet"]
    assert (scan.tracer_or_sequence, scan.units) == ("PSMA", "SUV")
    image = read_image(scan.image, subject.id)
    assert scan.label is not None
    label = read_label(scan.label, image.grid, list(source.read(0).structures.values()), subject.id)
    # PSMA kidneys outshine the liver several times
    ids = source.read(0).structures
    kidney, liver = (image.array[label.array == ids[n]].mean() for n in ("kidney_left", "liver"))
    assert kidney > 3 * liver
    before = scan.image.stat().st_mtime_ns
    (again,) = source.load(0).subjects
    assert again.scans["pet"].image == scan.image
    assert scan.image.stat().st_mtime_ns == before
    folder("fdg_other", "psma_01_x")  # another voxel in the same file
    (root / "fdg_other.nii.gz").unlink()
    (changed,) = source.read(0).subjects
    assert changed.scans["pet"].image != scan.image


def test_one_map_under_two_names_is_refused(folder: Folder, tmp_path: Path) -> None:
    root = folder("fdg_01_x")
    (root / "fdg_02_x.nii.gz").write_bytes((root / "fdg_01_x.nii.gz").read_bytes())
    with pytest.raises(UserError, match="are the same"):
        _on_maps(root, tmp_path).read(0)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"tracer": "FDGG"}, "did you mean: FDG"),
        ({"copies": 0}, "copies"),
        ({"deform": -1.0}, "deform"),
        ({"extent_mm": [400.0, 300.0]}, "three lengths"),
        ({"extent_mm": [400.0, float("nan"), 300.0]}, "three lengths"),
        ({"deform": float("nan")}, "the others >= 0"),
    ],
)
def test_options_of_maps_that_cannot_be(
    folder: Folder, tmp_path: Path, more: dict[str, object], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        _on_maps(folder("a"), tmp_path, **more)


@pytest.mark.parametrize("more", [{"copies": 2}, {"tracer": "PSMA"}, {"label_ids": "x.json"}])
def test_options_of_maps_need_maps(tmp_path: Path, more: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"data\.labels"):
        _options(tmp_path, **more).validate()


def test_procedural_people_join_those_on_maps_under_one_table_of_ids(folder: Folder, tmp_path: Path) -> None:
    root = folder("fdg_01_x", "fdg_02_x")
    mixed = _on_maps(root, tmp_path / "cache", procedural=1).load(0)
    alone = PhantomSource(_options(tmp_path / "cache", train=1, test=0)).load(0)
    assert set(alone.structures) <= set(mixed.structures)
    assert len(set(mixed.structures.values())) == len(mixed.structures)
    (more,) = [s for s in mixed.subjects if s.id.startswith("phantom_train")]
    assert more.split == "train"
    assert set(more.annotated or ()) == set(alone.structures)
    on_maps = _on_maps(root, tmp_path / "cache").read(0)
    assert all(set(s.annotated or ()) == set(on_maps.structures) for s in mixed.subjects if s is not more)
    assert all(s.annotated is None for s in on_maps.subjects)
    # the same person, and the same organs under other numbers
    ours, theirs = more.scans["pet"], alone.subjects[0].scans["pet"]
    image = read_image(ours.image, more.id)
    assert (image.array == read_image(theirs.image, "other").array).all()
    assert ours.label is not None
    assert theirs.label is not None
    found, told = (
        read_label(scan.label, image.grid, list(data.structures.values()), "x").array  # type: ignore[arg-type]
        for scan, data in ((ours, mixed), (theirs, alone))
    )
    for name, number in alone.structures.items():
        assert ((found == mixed.structures[name]) == (told == number)).all(), name


def test_the_split_of_maps_is_one_for_all_seeds(folder: Folder, tmp_path: Path) -> None:
    root = folder(*PEOPLE)
    splits = [{s.id: s.split for s in _on_maps(root, tmp_path).read(seed).subjects} for seed in (0, 7)]
    assert splits[0] == splits[1]
    with pytest.raises(UserError, match="procedural"):
        _options(tmp_path, procedural=3).validate()
