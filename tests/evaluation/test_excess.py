"""The excess gap against numbers worked out by hand."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from umdseg.errors import UserError
from umdseg.evaluation import gap
from umdseg.evaluation.bootstrap import mean_interval
from umdseg.evaluation.cases import case_table

# subject: CT and PET of the model before and after, then CT and PET of supervised networks
HAND = {
    "s1": (0.90, 0.40, 0.88, 0.80, 0.92, 0.82),
    "s2": (0.92, 0.50, 0.92, 0.82, 0.93, 0.85),
    "s3": (0.88, 0.36, 0.85, 0.72, 0.90, 0.84),
    "s4": (0.94, 0.54, 0.93, 0.86, 0.95, 0.81),
}
CELLS = list(itertools.product(("zero_shot", "adapted", "supervised"), ("ct", "pet")))


def hand_made(**more: object) -> pd.DataFrame:
    rows = []
    for subject, scores in HAND.items():
        for (stage, modality), dice in zip(CELLS, scores, strict=True):
            model = "unet" if stage == "supervised" else "m"
            head = {
                "subject": subject,
                "structure": "liver",
                "prompt": "auto",
                "model": model,
                "status": "ok",
            }
            rows.append({**head, "stage": stage, "modality": modality, "dice": dice, **more})
    return case_table(rows)


def only(entries: list[dict], **wanted: str) -> dict:
    (hit,) = [e for e in entries if all(e[k] == v for k, v in wanted.items())]
    return hit


def test_excess_is_the_gap_less_that_of_supervised_networks() -> None:
    found = gap(hand_made())
    before, after = (only(found["excess"], stage=stage) for stage in ("zero_shot", "adapted"))
    # gaps .50 .42 .52 .40 before and .08 .10 .13 .07 after; supervised .10 .08 .06 .14
    assert before["supervised"] == after["supervised"] == pytest.approx(0.095)
    assert before["value"] == pytest.approx(0.46 - 0.095)
    assert after["value"] == pytest.approx(0.095 - 0.095)
    each = [0.50 - 0.10, 0.42 - 0.08, 0.52 - 0.06, 0.40 - 0.14]
    assert before["ci"] == pytest.approx(mean_interval(each).as_list(), abs=1e-3)
    assert after["ci"][0] < 0 < after["ci"][1]
    assert (before["n_subjects"], before["n_patients"], before["n_structures"]) == (4, 4, 1)
    assert (before["reference"], before["target"], before["prompt"]) == ("ct", "pet", "auto")
    # the supervised gap itself stands among the gaps, and the rest is as without it
    alone = gap(hand_made().query("stage != 'supervised'"))
    assert alone["excess"] == []
    assert (found["closure"], found["forgetting"]) == (alone["closure"], alone["forgetting"])
    assert only(found["gaps"], stage="supervised")["gap"] == pytest.approx(0.095)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_supervised_networks_alone_have_no_excess() -> None:
    assert gap(hand_made().query("stage == 'supervised'"))["excess"] == []


def test_each_modality_may_have_a_network_of_its_own_but_one_only() -> None:
    table = hand_made()
    on_pet = (table.stage == "supervised") & (table.modality == "pet")
    own = table.assign(model=table.model.mask(on_pet, "other"))
    assert gap(own)["excess"] == gap(table)["excess"]
    with pytest.raises(UserError, match="several values of 'model' in stage supervised, modality pet"):
        gap(pd.concat([table, own[on_pet]]))
    # two networks under one name: the second was trained on CT and scored on PET all the same
    with pytest.raises(UserError, match="stand twice"):
        gap(pd.concat([table, table[on_pet].assign(dice=0.1)]))


def test_only_what_both_sides_scored_is_compared() -> None:
    table = hand_made()
    first = table[table.subject == "s1"]
    extra = first.assign(subject="s9", patient="s9", dice=0.3).query("stage != 'supervised'")
    spleen = first.assign(structure="spleen", dice=0.2).query("stage == 'supervised'")
    # of s4 the network has no PET score
    gone = (table.subject == "s4") & (table.stage == "supervised") & (table.modality == "pet")
    lost = table.assign(status=table.status.mask(gone, "not_annotated"), dice=table.dice.mask(gone))
    entry = only(gap(pd.concat([lost, extra, spleen]))["excess"], stage="zero_shot")
    assert entry["value"] == pytest.approx((0.40 + 0.34 + 0.46) / 3)
    assert (entry["n_subjects"], entry["n_structures"]) == (3, 1)


def test_copies_of_a_patient_leave_the_interval_as_it_was() -> None:
    table = hand_made()
    copies = table.assign(patient=table.subject, subject=table.subject + "_copy")
    for one, both in zip(gap(table)["excess"], gap(pd.concat([table, copies]))["excess"], strict=True):
        assert (both["n_subjects"], both["n_patients"]) == (8, 4)
        assert both["ci"] == pytest.approx(one["ci"], abs=1e-3)


def test_what_is_missing_is_named() -> None:
    table = hand_made()
    theirs = table.stage == "supervised"
    without = gap(table[~(theirs & (table.modality == "pet"))])["excess"]
    assert {e["reason"] for e in without} == {"no supervised network was scored on pet"}
    assert all(e["value"] is None and e["ci"] is None and e["n_subjects"] == 0 for e in without)
    renamed = table.subject.where(~theirs, table.subject + "x")
    entry = only(gap(table.assign(subject=renamed, patient=renamed))["excess"], stage="zero_shot")
    assert entry["value"] is None
    assert "no structure is scored on both sides" in entry["reason"]
    unscored = table.assign(status=table.status.mask(theirs, "class_unknown"), dice=table.dice.mask(theirs))
    assert "supervised pet: class_unknown" in only(gap(unscored)["excess"], stage="adapted")["reason"]
    two = gap(table[table.subject.isin(["s1", "s2"])])["excess"][0]
    assert two["value"] == pytest.approx((0.40 + 0.34) / 2)
    assert two["ci"] is None
    assert "not 2" in two["reason"]


def test_scores_against_other_labels_are_not_subtracted() -> None:
    volume = {"s1": 10.0, "s2": 20.0, "s3": 30.0, "s4": 40.0}
    table = hand_made().assign(volume_ref_ml=lambda t: t.subject.map(volume))
    assert gap(table)["excess"] == gap(hand_made())["excess"]
    theirs = table.stage == "supervised"
    # one name, another person: s4's reference is not the same structure there
    other = table.assign(volume_ref_ml=table.volume_ref_ml.mask(theirs & (table.subject == "s4"), 41.0))
    entry = only(gap(other)["excess"], stage="zero_shot")
    assert entry["n_subjects"] == 3
    assert entry["value"] == pytest.approx((0.40 + 0.34 + 0.46) / 3)
    every = table.assign(volume_ref_ml=table.volume_ref_ml.mask(theirs, table.volume_ref_ml * 1.01))
    assert "other labels" in only(gap(every)["excess"], stage="zero_shot")["reason"]
    # the common field depends on the scans that are scored, the labels' own grids do not
    found = gap(pd.concat([table.assign(score_grid="label"), every.assign(score_grid="common")]))
    assert found["excess"][0]["value"] == pytest.approx(0.365)
    assert found["common"]["excess"][0]["value"] is None


def test_a_model_asked_by_click_is_held_against_networks_asked_by_class() -> None:
    table = hand_made()
    clicked = table.assign(prompt=table.prompt.mask(table.stage != "supervised", "point"))
    entry = only(gap(clicked)["excess"], stage="zero_shot")
    assert (entry["prompt"], entry["supervised_prompt"]) == ("point", "auto")
    assert entry["value"] == pytest.approx(0.365)
    # where the networks were asked by click, too, that counts
    both = pd.concat([clicked, clicked[clicked.stage == "supervised"].assign(prompt="point", dice=0.9)])
    entry = only(gap(both)["excess"], stage="zero_shot", prompt="point")
    assert (entry["supervised_prompt"], entry["value"]) == ("point", pytest.approx(0.46))


def test_the_reference_is_what_the_model_saw_whatever_the_networks_saw_besides() -> None:
    table = hand_made()
    table = table.assign(modality=table.modality.replace({"ct": "mr"}))
    ct = table[(table.stage == "supervised") & (table.modality == "mr")].assign(modality="ct", dice=0.99)
    found = gap(pd.concat([table, ct]))["excess"]
    assert [(e["reference"], e["target"]) for e in found] == [("mr", "pet")] * 2
    assert found[0]["value"] == pytest.approx(0.365)


def test_distances_are_subtracted_the_same_way() -> None:
    table = hand_made()
    table = table.assign(hd95=10 - 10 * table.dice, dice=np.nan)
    assert only(gap(table)["excess"], stage="zero_shot")["value"] == pytest.approx(-3.65)
