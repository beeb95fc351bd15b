"""What was forgotten of old structures, by hand."""

from __future__ import annotations

import pytest

from umdseg.evaluation.cases import case_table
from umdseg.evaluation.forgotten import forgotten


def row(subject: str, structure: str, stage: str, dice: float, modality: str = "ct", **more) -> dict:
    head = {"subject": subject, "structure": structure, "stage": stage, "modality": modality}
    return {**head, "dice": dice, "prompt": "auto", "status": "ok", "score_grid": "label", **more}


def test_the_loss_is_a_mean_over_structures_then_subjects_of_what_both_stages_scored() -> None:
    rows = [row(s, o, "zero_shot", 0.9) for s in "abc" for o in ("liver", "spleen")]
    after = {"a": (0.8, 0.9), "b": (0.9, 0.9), "c": (0.7, 0.5)}
    rows += [
        row(s, o, "adapted", d) for s, v in after.items() for o, d in zip(("liver", "spleen"), v, strict=True)
    ]
    # scored once only, or not at all: no part of it
    rows += [row("d", "liver", "zero_shot", 0.1), row("a", "aorta", "adapted", 0.0)]
    rows += [
        row("a", "liver", "adapted", 0.0, score_grid="common"),
        row("a", "liver", "zero_shot", 0.5, "pet"),
    ]
    found = forgotten(case_table(rows), 200)
    assert found["structures"] == ["liver", "spleen", "aorta"]
    (entry,) = found["forgetting"]
    assert entry["value"] == pytest.approx((0.05 + 0.0 + 0.3) / 3)
    assert (entry["modality"], entry["n_subjects"], entry["n_structures"]) == ("ct", 3, 2)
    assert entry["ci"][0] <= entry["value"] <= entry["ci"][1]
    # a second study of each of them, with the same scores, is no further person
    again = [{**r, "subject": f"{r['subject']}2", "patient": r["subject"]} for r in rows]
    (both,) = forgotten(case_table([*rows, *again]), 200)["forgetting"]
    assert (both["n_subjects"], both["n_patients"]) == (6, 3)
    assert both["ci"] == pytest.approx(entry["ci"])


def test_distances_are_worse_when_they_grow() -> None:
    rows = [
        row(s, "liver", stage, 0.9, hd95=d)
        for s in "ab"
        for stage, d in (("zero_shot", 3.0), ("adapted", 5.0))
    ]
    found = {e["metric"]: e["value"] for e in forgotten(case_table(rows), 200)["forgetting"]}
    assert found == pytest.approx({"dice": 0.0, "hd95": 2.0})


def test_structures_that_labels_do_not_tell_about_count_nowhere() -> None:
    rows = [row(s, "liver", stage, d) for s in "abc" for stage, d in (("zero_shot", 0.9), ("adapted", 0.7))]
    blank = [
        row("a", "spleen", stage, float("nan"), status="not_annotated") for stage in ("zero_shot", "adapted")
    ]
    (entry,) = forgotten(case_table([*rows, *blank]), 200)["forgetting"]
    assert entry["value"] == pytest.approx(0.2)
    assert (entry["n_subjects"], entry["n_structures"]) == (3, 1)
