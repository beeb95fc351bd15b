"""Won back: closed forms, scipy's bootstrap, and when there is nothing to win."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from umdseg.errors import UserError
from umdseg.evaluation import won_back
from umdseg.evaluation.cases import case_table

N = 12


def table(stage: str, scores: np.ndarray, **more: Any) -> pd.DataFrame:
    head = {"modality": "pet", "structure": "liver", "stage": stage, "model": "m", "prompt": "auto"}
    head |= {"status": "ok", "score_grid": "label", "volume_ref_ml": 10.0, **more}
    return case_table([{**head, "subject": f"s{i:02d}", "dice": v} for i, v in enumerate(scores)])


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    before = rng.normal(0.3, 0.08, N)
    best = before + rng.normal(0.45, 0.1, N)
    return before, before + 0.8 * (best - before) + rng.normal(0, 0.04, N), best


def tables(before: np.ndarray, after: np.ndarray, best: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    run = pd.concat([table("zero_shot", before), table("adapted", after, adapter="lora")])
    return run, table("supervised", best, model="resenc_unet", adapter="full")


def test_value_is_the_ratio_of_means_and_its_interval_scipys(drawn) -> None:
    before, after, best = drawn
    found = won_back(*tables(*drawn), "pet", n_resamples=20_000)
    assert found["value"] == pytest.approx((after.mean() - before.mean()) / (best.mean() - before.mean()))
    theirs = stats.bootstrap(
        (before, after, best),
        lambda b, a, s, axis=-1: (a.mean(axis) - b.mean(axis)) / (s.mean(axis) - b.mean(axis)),
        paired=True,
        method="BCa",
        n_resamples=20_000,
        rng=np.random.default_rng(11),
    ).confidence_interval
    assert found["ci"] == pytest.approx([theirs.low, theirs.high], abs=0.004)
    assert found["zero_shot"] == pytest.approx(before.mean())
    assert found["supervised"] == pytest.approx(best.mean())
    assert (found["n_patients"], found["n_structures"], found["notes"]) == (N, 1, [])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_ends_of_the_scale(drawn) -> None:
    before, _, best = drawn
    whole = won_back(*tables(before, best, best), "pet")
    assert whole["value"] == pytest.approx(1.0)
    assert whole["ci"] == pytest.approx([1.0, 1.0])
    nothing = won_back(*tables(before, before, best), "pet")
    assert nothing["value"] == pytest.approx(0.0)
    assert nothing["ci"] == pytest.approx([0.0, 0.0])


def test_only_what_all_three_scored_counts(drawn) -> None:
    run, best = tables(*drawn)
    clean = won_back(run, best, "pet")
    odd = pd.concat([run, table("adapted", np.zeros(1), structure="spleen", adapter="lora")])
    found = won_back(
        odd,
        pd.concat(
            [best, table("supervised", np.ones(1), structure="aorta", model="resenc_unet", adapter="full")]
        ),
        "pet",
    )
    assert (found["value"], found["ci"]) == (clean["value"], clean["ci"])
    assert any("spleen" in note for note in found["notes"])
    assert any("aorta" in note for note in found["notes"])
    fewer = won_back(run, best[best.subject != "s00"], "pet")
    before, after, goal = (values[1:] for values in drawn)
    assert fewer["value"] == pytest.approx((after - before).mean() / (goal - before).mean())
    assert fewer["n_patients"] == N - 1


def test_patients_are_resampled_not_their_copies(drawn) -> None:
    once = won_back(*tables(*drawn), "pet")

    def twice(cases: pd.DataFrame) -> pd.DataFrame:
        copy = cases.assign(subject=cases["subject"] + "_copy1")
        return pd.concat([cases, copy]).assign(dataset="phantom")

    found = won_back(*(twice(t) for t in tables(*drawn)), "pet")
    assert (found["value"], found["ci"]) == (pytest.approx(once["value"]), pytest.approx(once["ci"]))
    assert (found["n_patients"], found["n_subjects"]) == (N, 2 * N)


def test_a_lead_that_may_be_chance_has_no_share(drawn) -> None:
    before, after, _ = drawn
    noise = before + np.tile([0.1, -0.1], N // 2)
    found = won_back(*tables(before, after, noise), "pet")
    assert found["value"] is found["ci"] is None
    assert "not distinguishable from zero-shot" in found["reason"]
    # what it would be a share of is told all the same
    assert found["supervised"] == pytest.approx(noise.mean())


def test_a_supervised_model_that_is_worse_is_no_goal(drawn) -> None:
    before, after, _ = drawn
    found = won_back(*tables(before, after, before - 0.2), "pet")
    assert found["value"] is None
    assert "worse than zero-shot" in found["reason"]


def test_distances_are_won_back_downwards(drawn) -> None:
    before, after, best = (30 * (1 - values) for values in drawn)
    run, goal = (t.assign(hd95=t["dice"], dice=0.5) for t in tables(before, after, best))
    found = won_back(run, goal, "pet", metric="hd95")
    assert found["value"] == pytest.approx((before - after).mean() / (before - best).mean())
    worse = goal.assign(hd95=before.mean() + 20)
    assert "worse" in won_back(run, worse, "pet", metric="hd95")["reason"]


def test_full_tuning_is_a_goal_by_its_adapted_rows(drawn) -> None:
    run, best = tables(*drawn)
    before = table("zero_shot", drawn[0])
    full = pd.concat([before, best.assign(stage="adapted", model="m", adapter="full")])
    assert won_back(run, full, "pet")["value"] == pytest.approx(won_back(run, best, "pet")["value"])


def test_a_model_asked_by_click_is_held_against_one_asked_by_class(drawn) -> None:
    run, best = tables(*drawn)
    found = won_back(run.assign(prompt="point"), best, "pet", prompt="point")
    assert found["value"] == pytest.approx(won_back(run, best, "pet")["value"])
    assert found["notes"] == ["the supervised model was asked by auto"]


def test_what_the_base_did_not_know_cannot_be_won_back(drawn) -> None:
    before, after, best = drawn
    unknown = table("zero_shot", before, status="class_unknown").assign(dice=np.nan)
    run = pd.concat([unknown, table("adapted", after, adapter="lora")])
    found = won_back(run, table("supervised", best), "pet")
    assert found["value"] is None
    assert "zero_shot: class_unknown" in found["reason"]


def test_another_label_under_the_same_name_is_refused(drawn) -> None:
    run, best = tables(*drawn)
    with pytest.raises(UserError, match="other labels"):
        won_back(run, best.assign(volume_ref_ml=12.0), "pet")
