"""Gap, closure and forgetting against numbers worked out by hand."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from umdseg.errors import UserError
from umdseg.evaluation import gap
from umdseg.evaluation.cases import case_table

# subject: (ct before, pet before, ct after, pet after), one structure each
HAND = {
    "s1": (0.90, 0.40, 0.88, 0.80),
    "s2": (0.92, 0.50, 0.92, 0.82),
    "s3": (0.88, 0.36, 0.85, 0.72),
    "s4": (0.94, 0.54, 0.93, 0.86),
}


def rows(
    scores: dict[tuple[str, str], float], subject: str, structure: str = "liver", **more: object
) -> list[dict]:
    head = {"subject": subject, "structure": structure, "prompt": "auto", "model": "m", "status": "ok"}
    return [{**head, "stage": s, "modality": m, "dice": d, **more} for (s, m), d in scores.items()]


def hand_made() -> pd.DataFrame:
    keys = [("zero_shot", "ct"), ("zero_shot", "pet"), ("adapted", "ct"), ("adapted", "pet")]
    return case_table(itertools.chain(*(rows(dict(zip(keys, v, strict=True)), s) for s, v in HAND.items())))


def only(entries: list[dict], **wanted: str) -> dict:
    (hit,) = [e for e in entries if all(e[k] == v for k, v in wanted.items())]
    return hit


def test_hand_made_table() -> None:
    found = gap(hand_made())
    before, after = (only(found["gaps"], stage=s) for s in ("zero_shot", "adapted"))
    # (.50 + .42 + .52 + .40) / 4 and (.08 + .10 + .13 + .07) / 4
    assert before["gap"] == pytest.approx(0.46)
    assert after["gap"] == pytest.approx(0.095)
    assert (before["reference"], before["target"], before["metric"], before["prompt"]) == (
        "ct",
        "pet",
        "dice",
        "auto",
    )
    assert (before["n_subjects"], before["n_patients"], before["n_structures"]) == (4, 4, 1)
    # mean gain (.40 + .32 + .36 + .32) / 4 = .35 over the mean gap .46
    (closed,) = found["closure"]
    assert closed["value"] == pytest.approx(0.35 / 0.46)
    assert closed["ci"][0] < closed["value"] < closed["ci"][1]
    # (.02 + 0 + .03 + .01) / 4
    (lost,) = found["forgetting"]
    assert lost["value"] == pytest.approx(0.015)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_identical_modalities_have_no_gap_and_nothing_to_close() -> None:
    rng = np.random.default_rng(0)
    table = []
    for s in range(6):
        value = float(rng.uniform(0.5, 0.9))
        noise = float(rng.normal(0, 0.05))
        table += rows({("zero_shot", "ct"): value, ("zero_shot", "pet"): value}, f"a{s}")
        table += rows({("adapted", "ct"): value, ("adapted", "pet"): value + noise}, f"a{s}")
    found = gap(case_table(table))
    same = only(found["gaps"], stage="zero_shot")
    assert same["gap"] == 0.0
    assert same["ci"][0] <= 0 <= same["ci"][1]
    assert found["closure"][0]["value"] is None
    assert "distinguishable" in found["closure"][0]["reason"]


def test_closure_is_undefined_where_the_gap_may_be_chance() -> None:
    signs = (0.1, -0.1, 0.12, -0.12, 0.05)
    table = []
    for i, sign in enumerate(signs):
        table += rows(
            {("zero_shot", "ct"): 0.8, ("zero_shot", "pet"): 0.8 - sign, ("adapted", "pet"): 0.85}, f"s{i}"
        )
    (closed,) = gap(case_table(table))["closure"]
    assert closed["value"] is None
    assert closed["ci"] is None
    assert "distinguishable" in closed["reason"]


def test_a_better_target_has_no_gap_to_close() -> None:
    table = []
    for i in range(4):
        table += rows(
            {("zero_shot", "ct"): 0.5, ("zero_shot", "pet"): 0.8 + i / 100, ("adapted", "pet"): 0.9}, f"s{i}"
        )
    assert "no gap to close" in gap(case_table(table))["closure"][0]["reason"]


def test_only_the_same_subjects_and_structures_are_compared() -> None:
    table = hand_made()
    # a subject without PET and a structure empty on PET would shift an unpaired mean
    extra = rows({("zero_shot", "ct"): 0.1}, "s9") + rows({("zero_shot", "ct"): 0.1}, "s1", "spleen")
    empty = rows({("zero_shot", "pet"): float("nan")}, "s1", "spleen", status="empty_reference")
    found = only(gap(pd.concat([table, case_table([*extra, *empty])]))["gaps"], stage="zero_shot")
    assert found["gap"] == pytest.approx(0.46)
    assert (found["n_subjects"], found["n_structures"]) == (4, 1)


def test_mr_is_the_reference_of_subjects_without_ct() -> None:
    table = []
    for i in range(4):
        with_ct = {("zero_shot", "ct"): 0.9, ("zero_shot", "mr"): 0.6, ("zero_shot", "pet"): 0.5}
        table += rows(with_ct, f"c{i}")
        table += rows({("zero_shot", "mr"): 0.7, ("zero_shot", "pet"): 0.4 + i / 50}, f"m{i}")
        table += rows({("zero_shot", "ct"): float("nan")}, f"m{i}", status="modality_absent")
    found = gap(case_table(table))["gaps"]
    assert [(e["reference"], e["target"], e["n_subjects"]) for e in found] == [
        ("ct", "pet", 4),
        ("ct", "mr", 4),
        ("mr", "pet", 4),
    ]
    assert only(found, reference="mr")["gap"] == pytest.approx(0.7 - (0.40 + 0.42 + 0.44 + 0.46) / 4)


def test_structures_new_to_the_model_have_no_gap_before_and_say_why() -> None:
    table = []
    for i in range(3):
        unknown = {("zero_shot", m): float("nan") for m in ("ct", "pet")}
        table += rows(unknown, f"s{i}", "tumour", status="class_unknown")
        table += rows({("adapted", "ct"): 0.6, ("adapted", "pet"): 0.7 + i / 20}, f"s{i}", "tumour")
    found = gap(case_table(table))
    before = only(found["gaps"], stage="zero_shot")
    assert before["gap"] is None
    assert "class_unknown" in before["reason"]
    assert only(found["gaps"], stage="adapted")["gap"] == pytest.approx(0.6 - 0.75)
    assert found["closure"][0]["value"] is None
    assert found["forgetting"][0]["value"] is None


def test_a_modality_without_labels_is_named_as_the_reason() -> None:
    table = []
    for i in range(3):
        table += rows({("zero_shot", "ct"): 0.8}, f"s{i}")
        bare = {"status": "empty_reference", "condition": "no_label"}
        table += rows({("zero_shot", "pet"): float("nan")}, f"s{i}", **bare)
    (entry,) = gap(case_table(table))["gaps"]
    assert entry["gap"] is None
    assert "zero_shot pet: no_label" in entry["reason"]


def test_two_subjects_give_a_value_without_an_interval() -> None:
    table = hand_made()
    entry = only(gap(table[table.subject.isin(["s1", "s2"])])["gaps"], stage="zero_shot")
    assert entry["gap"] == pytest.approx(0.46)
    assert entry["ci"] is None
    assert "not 2" in entry["reason"]


def test_distances_are_worse_when_larger() -> None:
    table = []
    for i in range(4):
        values = {("zero_shot", "ct"): 2.0, ("zero_shot", "pet"): 10.0 + i, ("adapted", "ct"): 3.0 + i / 10}
        values[("adapted", "pet")] = 6.0 + i / 2
        for row in rows(values, f"s{i}"):
            row["hd95"] = row.pop("dice")
            table.append(row)
    found = gap(case_table(table))
    assert only(found["gaps"], stage="zero_shot")["gap"] == pytest.approx(2.0 - 11.5)
    assert found["closure"][0]["value"] == pytest.approx((11.5 - 6.75) / (11.5 - 2.0))
    assert found["forgetting"][0]["value"] == pytest.approx(1.15)


def test_baselines_do_not_count_and_several_models_are_refused() -> None:
    table = hand_made()
    rival = table.assign(model="intensity", stage="supervised", dice=0.1)
    assert gap(pd.concat([table, rival])) == gap(table)
    with pytest.raises(UserError, match="several values of 'model'"):
        gap(pd.concat([table, table.assign(model="other")]))


def test_the_two_score_grids_are_never_mixed() -> None:
    table = hand_made()
    # on the common grid every score is 0.1 lower on CT and 0.1 higher on PET: each gap is 0.2 smaller
    common = table.assign(dice=table.dice + table.modality.map({"ct": -0.1, "pet": 0.1}))
    both = pd.concat([table.assign(score_grid="label"), common.assign(score_grid="common")])
    found = gap(both)
    assert {k: v for k, v in found.items() if k != "common"} == {
        k: v for k, v in gap(table).items() if k != "common"
    }
    assert only(found["common"]["gaps"], stage="zero_shot")["gap"] == pytest.approx(0.46 - 0.2)
    assert only(found["common"]["gaps"], stage="zero_shot")["n_subjects"] == 4
    assert found["common"]["closure"][0]["value"] == pytest.approx(0.35 / 0.26)
    assert found["common"]["forgetting"][0]["value"] == pytest.approx(0.015)


def test_tables_made_by_hand_are_on_the_labels_grid() -> None:
    table = hand_made()
    found = gap(table.drop(columns="score_grid"))
    assert found == gap(table)
    assert found["common"] == {"gaps": [], "closure": [], "forgetting": [], "excess": []}


def test_copies_of_one_patient_leave_every_interval_as_it_was() -> None:
    table = hand_made()
    copies = table.assign(patient=table.subject, subject=table.subject + "_copy")
    one, both = gap(table), gap(pd.concat([table, copies]))
    for kind, field in (("gaps", "gap"), ("closure", "value"), ("forgetting", "value")):
        for before, after in zip(one[kind], both[kind], strict=True):
            assert (after["n_subjects"], after["n_patients"]) == (8, 4)
            assert after[field] == pytest.approx(before[field])
            assert after["ci"] == pytest.approx(before["ci"])
    # two patients are too few, with however many studies
    few = pd.concat([table, copies])
    entry = only(gap(few[few.patient.isin(["s1", "s2"])])["gaps"], stage="zero_shot")
    assert (entry["n_subjects"], entry["n_patients"], entry["ci"]) == (4, 2, None)
    assert "3 patients, not 2" in entry["reason"]


def test_a_table_from_before_the_column_takes_patients_from_another_that_names_them() -> None:
    table = hand_made()
    old = table[table.stage == "zero_shot"].drop(columns="patient")
    new = table[table.stage == "adapted"].assign(patient=lambda t: t.subject.replace({"s1": "p", "s2": "p"}))
    found = gap(pd.concat([old, new]))
    assert only(found["gaps"], stage="zero_shot")["gap"] == pytest.approx(0.46)
    assert found["closure"][0]["n_patients"] == 3
    with pytest.raises(UserError, match="subject s1 two patients: p, q"):
        gap(pd.concat([new, new.assign(patient="q")]))


def test_one_id_in_two_datasets_is_two_people() -> None:
    table = hand_made().assign(dataset="one")
    # with the same ids every gap is 0.1 smaller; one mean over both would still count four
    other = table.assign(dataset="two", dice=table.dice + table.modality.map({"ct": 0.0, "pet": 0.1}))
    entry = only(gap(pd.concat([table, other]))["gaps"], stage="zero_shot")
    assert entry["gap"] == pytest.approx(0.46 - 0.05)
    assert (entry["n_subjects"], entry["n_patients"]) == (8, 8)


def test_one_measurement_with_two_results_is_refused_and_the_same_twice_is_not() -> None:
    table = hand_made()
    assert gap(pd.concat([table, table])) == gap(table)
    # two ranks of a sweep have the same names
    other = table.assign(dice=table.dice - 0.1)
    with pytest.raises(UserError, match="16 measurements stand twice") as caught:
        gap(pd.concat([table, other]))
    assert "subject s1, modality ct, structure liver" in str(caught.value)
    # seeds and folds are told apart, and averaged
    seeds = pd.concat([table.assign(seed=0), other.assign(seed=1)])
    assert only(gap(seeds)["gaps"], stage="zero_shot")["gap"] == pytest.approx(0.46)


def test_failures_without_a_distance_are_left_out_and_said_so() -> None:
    table = hand_made().assign(hd95=lambda t: 10 - 10 * t.dice)
    # nothing was found of s1 on PET: Dice carries that, a distance does not exist
    failed = (table.subject == "s1") & (table.modality == "pet") & (table.stage == "zero_shot")
    table = table.assign(dice=table.dice.mask(failed, 0.0), hd95=table.hd95.mask(failed))
    found = gap(table)
    distance = only(found["gaps"], stage="zero_shot", metric="hd95")
    assert distance["gap"] == pytest.approx(-(4.2 + 5.2 + 4.0) / 3)
    assert distance["n_subjects"] == 3
    assert "1 structure of a subject is left out: an empty prediction has no hd95" in distance["reason"]
    assert "left out" in only(found["closure"], metric="hd95")["reason"]
    whole = [
        only(found["gaps"], stage="adapted", metric="hd95"),
        only(found["gaps"], stage="zero_shot", metric="dice"),
    ]
    assert not any("left out" in entry.get("reason", "") for entry in whole)
