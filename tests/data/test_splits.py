"""Folds, validation share and shots: properties over many random cohorts."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from umdseg.data.dataset import PairedDataset, few_shots
from umdseg.data.options import DataOptions
from umdseg.data.splits import deal, refuse_leaks
from umdseg.errors import UserError
from umdseg.vocabulary import UNITS, Scan, Subject

KINDS = (("ct", "pet"), ("ct", "pet"), ("ct", "pet", "mr"), ("pet",), ("mr",))
EVEN = {"ct": 1.0, "pet": 1.0, "mr": 1.0}


def cohort(seed: int, size: int, sites: int = 3, studies: int = 1) -> PairedDataset:
    """People with 1 to `studies` studies each, of mixed modalities and tracers."""
    rng = random.Random(seed)
    subjects = []
    for person in range(size):
        kind, tracer, site = rng.choice(KINDS), rng.choice(["FDG", "PSMA"]), f"site{rng.randrange(sites)}"
        for study in range(rng.randint(1, studies)):
            scans = {
                m: Scan(Path(f"{m}.nii"), m, UNITS[m], None, tracer if m == "pet" else None) for m in kind
            }
            name = f"{seed}_{person}_{study}"
            subjects.append(Subject(name, scans, "", site, "made", f"person{person}"))
    return PairedDataset("made", tuple(subjects), {"liver": 1})


def split(dataset: PairedDataset, seed: int = 0, **options) -> dict[str, str]:
    return {s.id: s.split for s in deal(dataset, DataOptions(**options), seed).subjects}


def parts_of(dataset: PairedDataset, folds: int, seed: int = 0, **options) -> list[set[str]]:
    """Who is tested in each fold."""
    every = [split(dataset, seed, folds=folds, fold=fold, **options) for fold in range(folds)]
    return [{name for name, held in one.items() if held == "test"} for one in every]


COHORTS = [(seed, 4 + 7 * seed % 53, 2 + seed % 5) for seed in range(40)]


@pytest.mark.parametrize(("seed", "size", "folds"), COHORTS)
def test_folds_partition_and_are_even(seed: int, size: int, folds: int) -> None:
    dataset = cohort(seed, max(size, folds))
    parts = parts_of(dataset, folds, seed)
    assert sorted(name for part in parts for name in part) == sorted(s.id for s in dataset.subjects)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    # as even among people with the same modalities and tracer
    kind = {
        s.id: (*sorted(s.scans), s.scans["pet"].tracer_or_sequence if "pet" in s.scans else "")
        for s in dataset.subjects
    }
    for one in set(kind.values()):
        counts = [sum(kind[name] == one for name in part) for part in parts]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(("seed", "size", "folds"), COHORTS[:20])
def test_studies_of_one_patient_stay_together(seed: int, size: int, folds: int) -> None:
    dataset = cohort(seed, max(size, folds), studies=4)
    person = {s.id: s.patient for s in dataset.subjects}
    parts = [{person[name] for name in part} for part in parts_of(dataset, folds, seed)]
    assert sum(map(len, parts)) == len(set(person.values()))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    held = split(dataset, seed, folds=folds, val_share=0.3)
    for name in set(person.values()):
        assert len({held[s.id] for s in dataset.subjects if s.patient == name}) == 1


@pytest.mark.parametrize("seed", range(20))
def test_order_of_listing_does_not_matter(seed: int) -> None:
    dataset = cohort(seed, 23, studies=2)
    shuffled = list(dataset.subjects)
    random.Random(seed).shuffle(shuffled)
    for options in ({"folds": 4, "fold": 1, "val_share": 0.2}, {"folds": 2, "split_by": "site"}):
        assert split(dataset, seed, **options) == split(
            replace(dataset, subjects=tuple(shuffled)), seed, **options
        )


def test_seed_and_name_decide() -> None:
    dataset = cohort(0, 30)
    one, again, other = (parts_of(dataset, 3, seed) for seed in (0, 0, 1))
    assert one == again != other
    assert parts_of(replace(dataset, name="else"), 3) != one


@pytest.mark.parametrize("seed", range(20))
def test_validation_comes_from_training_alone(seed: int) -> None:
    dataset = cohort(seed, 20 + seed)
    plain, held = split(dataset, seed, folds=5), split(dataset, seed, folds=5, val_share=0.25)
    assert {n for n in plain if plain[n] == "test"} == {n for n in held if held[n] == "test"}
    counts, train = Counter(held.values()), Counter(plain.values())["train"]
    assert counts["val"] == round(0.25 * train)
    assert counts["train"] == train - counts["val"]


def test_a_share_never_takes_nobody_or_everybody() -> None:
    dataset = cohort(0, 6)
    assert Counter(split(dataset, folds=2, val_share=0.01).values()) == {"test": 3, "train": 2, "val": 1}
    assert Counter(split(dataset, folds=2, val_share=0.99).values()) == {"test": 3, "train": 1, "val": 2}


def test_without_folds_the_own_split_stays() -> None:
    subjects = [replace(s, split=name) for s, name in zip(cohort(0, 8).subjects, "aaaabbcd", strict=True)]
    given = {"a": "train", "b": "val", "c": "test", "d": ""}
    own = replace(cohort(0, 8), subjects=tuple(replace(s, split=given[s.split]) for s in subjects))
    assert split(own) == {s.id: s.split for s in own.subjects}
    held = split(own, val_share=0.5)
    assert Counter(held.values()) == {"train": 2, "val": 4, "test": 1, "": 1}
    assert set(split(own, folds=2).values()) == {"train", "test"}
    assert len(deal(own, DataOptions(), 0).of("all")) == 8


@pytest.mark.parametrize("seed", range(10))
def test_sites_are_held_out_whole(seed: int) -> None:
    dataset = cohort(seed, 40, sites=6)
    site = {s.id: s.site for s in dataset.subjects}
    parts = parts_of(dataset, 3, seed, split_by="site")
    assert sorted(n for part in parts for n in part) == sorted(site)
    homes = [{site[name] for name in part} for part in parts]
    assert sum(map(len, homes)) == len(set(site.values()))
    # largest first into the emptiest: no fold exceeds the emptiest by more than its last site
    largest = max(Counter(site.values()).values())
    assert max(map(len, parts)) - min(map(len, parts)) <= largest
    held = split(dataset, seed, folds=3, split_by="site", val_share=0.3)
    assert all(len({held[n] for n in site if site[n] == home}) == 1 for home in set(site.values()))
    assert set(held.values()) == {"train", "val", "test"}


def test_more_shots_hold_fewer_also_across_folds() -> None:
    dataset = cohort(3, 30)
    everybody = [s.id for s in few_shots(dataset.subjects, 30, 5, EVEN)]
    for fold in range(3):
        train = deal(dataset, DataOptions(folds=3, fold=fold), 5).of("train")
        order = [s.id for s in few_shots(train, 20, 5, EVEN)]
        assert order == [name for name in everybody if name in order]
        for fewer, more in ((1, 5), (5, 10)):
            assert [s.id for s in few_shots(train, fewer, 5, EVEN)] == order[:fewer]
            assert order[:fewer] == order[:more][:fewer]


def test_one_patient_alone_is_tested() -> None:
    dataset = cohort(0, 1, studies=3)
    assert set(split(dataset, folds=3, fold=2).values()) == {"test"}


def test_a_patient_in_two_splits_is_refused() -> None:
    first = cohort(0, 2).subjects[0]
    twice = [replace(first, split="train"), replace(first, id="again", split="test")]
    with pytest.raises(UserError, match=f"{first.id} and again are one patient") as caught:
        refuse_leaks(twice)
    assert "'train' and 'test'" in str(caught.value)
    refuse_leaks([replace(first, split="train"), replace(first, id="again", split="")])
    # dealt by site, a patient scanned at two sites would straddle
    moved = (replace(first, site="A"), replace(first, id="again", site="B"))
    dataset = replace(cohort(0, 2), subjects=moved)
    with pytest.raises(UserError, match="one patient"):
        split(dataset, folds=2, split_by="site")


@pytest.mark.parametrize(
    ("options", "where", "what"),
    [
        ({"folds": 1}, "data.folds", "1 is out of range"),
        ({"folds": 3, "fold": 3}, "data.fold", "3 is out of range"),
        ({"fold": 1}, "data.fold", "fold 1 of no folds"),
        ({"val_share": 1.0}, "data.val_share", "out of range"),
        ({"split_by": "sites"}, "data.split_by", "unknown unit"),
        ({"split_by": "site"}, "data.split_by", "nothing is split by site"),
        ({"folds": 9, "fold": 8}, "data.fold", "there are 4 patients"),
        ({"folds": 4, "fold": 3, "split_by": "site"}, "data.fold", "sites"),
    ],
)
def test_folds_that_make_no_sense_are_refused(options: dict, where: str, what: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        split(cohort(1, 4), **options)
    assert caught.value.where == where
    assert caught.value.expected


def test_sites_must_be_known() -> None:
    dataset = cohort(0, 4)
    homeless = replace(dataset.subjects[2], site="")
    with pytest.raises(UserError, match=f"1 of 4 subjects have no site, such as {homeless.id}"):
        split(
            replace(dataset, subjects=(*dataset.subjects[:2], homeless, dataset.subjects[3])),
            folds=2,
            split_by="site",
        )
