"""A shot is somebody who can be trained on, and there are as many as the option says."""

from __future__ import annotations

from pathlib import Path

import pytest

from umdseg.data.dataset import few_shots
from umdseg.errors import UserError
from umdseg.vocabulary import Scan, Subject


def person(name: str, **labelled: bool) -> Subject:
    units = {"ct": "HU", "pet": "SUV", "mr": "a.u."}
    scans = {
        m: Scan(Path(f"{name}_{m}"), m, units[m], Path("label") if told else None)  # type: ignore[arg-type]
        for m, told in labelled.items()
    }
    return Subject(name, scans, "train")  # type: ignore[arg-type]


PEOPLE = [
    *(person(f"both{n}", ct=True, pet=True) for n in range(3)),
    *(person(f"pet{n}", pet=True) for n in range(4)),
    *(person(f"bare{n}", ct=False, pet=False) for n in range(5)),
]


@pytest.mark.parametrize("seed", range(6))
def test_those_who_cannot_be_trained_on_are_no_shots(seed: int) -> None:
    for shots in (1, 2, 3):
        found = few_shots(PEOPLE, shots, seed, {"ct": 1.0})
        assert len(found) == shots
        assert all(s.id.startswith("both") for s in found)
    pet = [few_shots(PEOPLE, shots, seed, {"pet": 1.0}) for shots in (2, 5)]
    assert {s.id for s in pet[0]} < {s.id for s in pet[1]}, "fewer shots are among more"


def test_more_shots_than_people_are_refused_with_their_number() -> None:
    with pytest.raises(UserError, match="4 shots, but 3 training subjects have") as caught:
        few_shots(PEOPLE, 4, 0, {"ct": 1.0, "mr": 0.0})
    assert caught.value.where == "data.shots"
    assert "at most 3" in str(caught.value.expected)
    assert few_shots(PEOPLE, None, 0, {"ct": 1.0}) == PEOPLE
