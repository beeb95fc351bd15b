"""Rows that a run takes over from runs of supervised networks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from umdseg.adapters import AdapterCard
from umdseg.errors import UserError
from umdseg.evaluation import EvaluationOptions, write_cases
from umdseg.evaluation.cases import case_table
from umdseg.files import write_json
from umdseg.runs.supervised import supervised_rows
from umdseg.vocabulary import Subject

MODEL = SimpleNamespace(card=SimpleNamespace(scratch=False), random_weights=False)
SUBJECTS = [Subject(name, {}) for name in ("a", "b")]


def run(folder: Path, trained: tuple[str, ...] = (), **more: object) -> Path:
    """A run of a network scored on CT and PET of three people and two structures."""
    head = {"dataset": "mine", "stage": "supervised", "model": "unet", "prompt": "auto", "status": "ok"}
    rows = [
        {**head, "split": "test", "subject": s, "modality": m, "structure": o, "dice": 0.5, **more}
        for s in ("a", "b", "c")
        for m in ("ct", "pet")
        for o in ("liver", "spleen")
    ]
    rows.append({**rows[0], "model": "intensity", "stage": "supervised", "dice": 0.1})
    write_cases(case_table(rows), folder)
    if trained:
        AdapterCard("unet", None, "full", modalities=list(trained)).write(folder / "adapter", lambda _: None)
    return folder


def taken(*runs: Path, backbone=MODEL, structures=("liver",), modalities=("ct", "pet")) -> pd.DataFrame:
    settings = SimpleNamespace(
        evaluation=EvaluationOptions(supervised=[str(r) for r in runs]),
        adapter=SimpleNamespace(name="full"),
        data=SimpleNamespace(modalities=list(modalities)),
    )
    return supervised_rows(settings, backbone, "mine", SUBJECTS, structures)


def told(table: pd.DataFrame) -> set[tuple[str, ...]]:
    return set(table[["model", "subject", "modality", "structure"]].itertuples(index=False, name=None))


def test_rows_are_those_of_what_the_model_is_scored_on(tmp_path: Path) -> None:
    one = run(tmp_path / "one", ("ct", "pet"))
    assert told(taken(one)) == {("unet", s, m, "liver") for s in "ab" for m in ("ct", "pet")}
    assert told(taken(one, modalities=("pet", "mr"))) == {("unet", s, "pet", "liver") for s in "ab"}
    assert taken().empty


def test_each_network_counts_on_what_it_was_trained_on(tmp_path: Path) -> None:
    ct, pet = run(tmp_path / "ct", ("ct",)), run(tmp_path / "pet", ("pet",), dice=0.8)
    found = taken(ct, pet)
    assert found.groupby("modality")["dice"].first().to_dict() == {"ct": 0.5, "pet": 0.8}
    # scored again by evaluate.py, it is the adapter's card that tells
    again = run(tmp_path / "again")
    write_json(again / "provenance.json", {"adapter": str(pet / "adapter")})
    assert set(taken(again).modality) == {"pet"}
    with pytest.raises(UserError, match="two networks are the supervised one for ct") as caught:
        taken(ct, run(tmp_path / "all"))
    assert str(tmp_path / "all") in str(caught.value)


def test_subjects_it_may_have_learned_from_do_not_count(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the subjects"):
        taken(run(tmp_path / "one", split="train"))


def test_what_is_no_supervised_network_of_these_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rows of stage supervised"):
        taken(run(tmp_path / "one", stage="adapted"))
    with pytest.raises(UserError, match="scored on data set 'theirs', this model on 'mine'"):
        taken(run(tmp_path / "two", dataset="theirs"))
    fused = run(tmp_path / "fused", ("ct", "pet"), modality="ct+pet", subset="pet", fusion="early")
    with pytest.raises(UserError, match=r"rows of scans given together \(ct\+pet\) cannot be") as given:
        taken(fused)
    assert str(fused) in str(given.value)
    with pytest.raises(UserError, match="none of the subjects, structures and modalities"):
        taken(run(tmp_path / "three"), structures=("heart",))
    scratch = SimpleNamespace(card=SimpleNamespace(scratch=True), random_weights=True)
    with pytest.raises(UserError, match="itself a supervised one"):
        taken(run(tmp_path / "four"), backbone=scratch)
    with pytest.raises(UserError, match="no run there") as caught:
        EvaluationOptions(supervised=[str(tmp_path / "nowhere")]).validate()
    assert caught.value.where == "evaluation.supervised"
