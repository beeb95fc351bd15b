"""Paired differences against numbers worked out by hand and against scipy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from umdseg.errors import UserError
from umdseg.evaluation import paired_difference
from umdseg.evaluation.cases import case_table
from umdseg.evaluation.paired import holm, signed_rank

A = {"s1": 0.80, "s2": 0.90, "s3": 0.70, "s4": 0.84, "s5": 0.77}
B = {"s1": 0.75, "s2": 0.82, "s3": 0.72, "s4": 0.74, "s5": 0.70}


def table(scores: dict[str, float | None], modality: str = "pet", **more: Any) -> pd.DataFrame:
    head = {"modality": modality, "structure": "tumour", "stage": "adapted", "model": "m", "prompt": "auto"}
    head |= {"score_grid": "label", "volume_ref_ml": 10.0, **more}
    found = [
        {**head, "subject": s, "dice": v, "status": "empty_reference" if v is None else "ok"}
        for s, v in scores.items()
    ]
    return case_table(found)


def test_mean_interval_and_p_are_those_of_scipy_on_the_patients_differences() -> None:
    found = paired_difference(table(A), table(B), "pet", n_resamples=20_000)
    differences = np.array([A[s] - B[s] for s in A])
    assert found["value"] == pytest.approx((0.05 + 0.08 - 0.02 + 0.10 + 0.07) / 5)
    assert (found["first_mean"], found["second_mean"]) == pytest.approx((0.802, 0.746))
    theirs = stats.bootstrap(
        (differences,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(7)
    ).confidence_interval
    assert found["ci"] == pytest.approx([theirs.low, theirs.high], abs=0.003)
    # of 5 differences only the smallest is negative: 2 of the 32 equally likely sign patterns on either side
    assert found["p"] == pytest.approx(2 * 2 / 32)
    assert (found["n_patients"], found["n_subjects"], found["n_structures"]) == (5, 5, 1)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_order_of_the_two_decides_the_sign() -> None:
    forth, back = paired_difference(table(A), table(B), "pet"), paired_difference(table(B), table(A), "pet")
    assert back["value"] == pytest.approx(-forth["value"])
    assert back["ci"] == pytest.approx([-forth["ci"][1], -forth["ci"][0]], abs=0.006)


def copies(scores: dict[str, float], by: float = 0.0) -> dict[str, float | None]:
    return {name: v + by for s, v in scores.items() for name in (s, f"{s}_copy1", f"{s}_copy2")}


def test_copies_of_a_patient_tell_nothing_new() -> None:
    once = paired_difference(table(A), table(B), "pet")
    thrice = paired_difference(
        table(copies(A), dataset="phantom"), table(copies(B), dataset="phantom"), "pet"
    )
    for name in ("value", "ci", "p"):
        assert thrice[name] == pytest.approx(once[name])
    assert (thrice["n_patients"], thrice["n_subjects"]) == (5, 15)
    # in a dataset whose names say nothing they are people of their own, and the interval would be narrower
    apart = paired_difference(table(copies(A), dataset="petct"), table(copies(B), dataset="petct"), "pet")
    assert apart["n_patients"] == 15
    assert np.ptp(apart["ci"]) < 0.7 * np.ptp(once["ci"])
    told = {s: s[:2] for s in copies(A)}
    named = paired_difference(table(copies(A)), table(copies(B)), "pet", patients=told)
    assert named["ci"] == pytest.approx(once["ci"])


def test_studies_of_one_patient_are_resampled_together() -> None:
    gains = {
        "a1": 0.4,
        "a2": 0.3,
        "a3": 0.35,
        "b": 0.0,
        "c1": 0.1,
        "c2": 0.05,
        "d": 0.02,
        "e": 0.07,
        "f": 0.2,
    }
    known = {"a1": "a", "a2": "a", "a3": "a", "c1": "c", "c2": "c"}
    half = dict.fromkeys(gains, 0.5)
    first = table({s: 0.5 + gain for s, gain in gains.items()})
    found = paired_difference(first, table(half), "pet", patients=known, n_resamples=20_000)
    assert found["value"] == pytest.approx(np.mean(list(gains.values())))
    assert (found["n_patients"], found["n_subjects"]) == (6, 9)
    people = [[0.4, 0.3, 0.35], [0.0], [0.1, 0.05], [0.02], [0.07], [0.2]]
    theirs = stats.bootstrap(
        (np.array([sum(p) for p in people]), np.array([len(p) for p in people], dtype=float)),
        lambda total, count, axis=-1: total.sum(axis) / count.sum(axis),
        paired=True,
        n_resamples=20_000,
        rng=np.random.default_rng(9),
    ).confidence_interval
    assert found["ci"] == pytest.approx([theirs.low, theirs.high], abs=0.01)
    # one value a patient for the test
    assert found["p"] == pytest.approx(stats.wilcoxon([np.mean(p) for p in people]).pvalue)


def test_subjects_weigh_alike_however_many_structures_they_have() -> None:
    extra = {"structure": "liver"}
    first = pd.concat([table({"s1": 0.9, "s2": 0.5, "s3": 0.5}), table({"s1": 0.7}, **extra)])
    second = pd.concat([table({"s1": 0.5, "s2": 0.5, "s3": 0.5}), table({"s1": 0.5}, **extra)])
    assert paired_difference(first, second, "pet")["value"] == pytest.approx((0.4 + 0.2) / 2 / 3)


def test_what_only_one_has_is_left_out_and_told() -> None:
    first = table({**A, "s9": 0.1})
    second = pd.concat([table({**B, "s8": 0.9, "s2": None}), table({"s1": 0.2}, structure="liver")])
    found = paired_difference(first, second, "pet")
    assert found["value"] == pytest.approx((0.05 - 0.02 + 0.10 + 0.07) / 4)
    assert found["n_patients"] == 4
    assert any("first's pet only" in note and "s2, s9" in note for note in found["notes"])
    assert any("second's pet only" in note and "s8" in note and "liver" in note for note in found["notes"])


def test_nothing_in_common_is_null_and_says_so() -> None:
    found = paired_difference(table(A), table({s: None for s in B}), "pet")
    assert found["value"] is found["ci"] is found["p"] is None
    assert "nothing is scored in both" in found["reason"]
    assert "empty_reference" in found["reason"]


def test_two_patients_give_a_difference_without_interval() -> None:
    two = {"s1": 0.8, "s2": 0.9}
    found = paired_difference(table(two), table(B), "pet")
    assert found["value"] == pytest.approx(0.065)
    assert found["ci"] is None
    assert "not 2" in found["reason"]


def test_scans_together_against_one_of_them() -> None:
    fused = pd.concat(
        [
            table({s: v + 0.10 for s, v in B.items()}, "ct+pet", subset="ct+pet", fusion="late"),
            table({s: v + 0.02 for s, v in B.items()}, "ct+pet", subset="pet", fusion="late"),
            table({s: v - 0.30 for s, v in B.items()}, "ct+pet", subset="ct", fusion="late"),
        ]
    )
    single = table(B)
    whole = paired_difference(fused, single, "ct+pet", "pet")
    assert whole["value"] == pytest.approx(0.10)
    assert (whole["first"], whole["second"]) == ("ct+pet", "pet")
    assert paired_difference(fused, single, "ct+pet/pet", "pet")["value"] == pytest.approx(0.02)
    # a model of several scans that is given PET alone stands for PET
    assert paired_difference(fused, single, "pet")["value"] == pytest.approx(0.02)
    assert paired_difference(fused, fused, "ct+pet", "ct+pet/ct")["value"] == pytest.approx(0.40)


def test_a_stage_can_be_named_and_the_last_one_counts_otherwise() -> None:
    before = {s: v - 0.25 for s, v in A.items()}
    cases = pd.concat([table(before, stage="zero_shot"), table(A)])
    assert paired_difference(cases, cases, "pet", "pet@zero_shot")["value"] == pytest.approx(0.25)
    assert paired_difference(cases, table(B), "pet")["first_mean"] == pytest.approx(np.mean(list(A.values())))


def test_trivial_baselines_are_no_model() -> None:
    rival = table(dict.fromkeys(A, 0.1), model="intensity", stage="supervised")
    found = paired_difference(pd.concat([table(A), rival]), table(B), "pet")
    assert found["value"] == pytest.approx(paired_difference(table(A), table(B), "pet")["value"])


def test_one_name_on_two_labels_is_refused() -> None:
    with pytest.raises(UserError, match="other labels") as caught:
        paired_difference(table(A), table(B, volume_ref_ml=11.0), "pet")
    assert "s1, tumour: 10 and 11 ml" in str(caught.value)


def test_other_inputs_may_have_other_labels_but_not_silently() -> None:
    fused = table(A, "ct+pet", subset="ct+pet", volume_ref_ml=11.0)
    assert any(
        "one label and grid" in n for n in paired_difference(fused, table(B), "ct+pet", "pet")["notes"]
    )
    same = table(A, "ct+pet", subset="ct+pet")
    assert paired_difference(same, table(B), "ct+pet", "pet")["notes"] == []


def test_score_grids_are_not_mixed() -> None:
    first = pd.concat(
        [table(A), table({s: v + 0.1 for s, v in A.items()}, score_grid="common", volume_ref_ml=3.0)]
    )
    second = pd.concat([table(B), table(B, score_grid="common", volume_ref_ml=3.0)])
    assert paired_difference(first, second, "pet")["value"] == pytest.approx(0.056)
    assert paired_difference(first, second, "pet", grid="common")["value"] == pytest.approx(0.156)
    with pytest.raises(UserError, match="common grid"):
        paired_difference(table(A), second, "pet", grid="common")


def test_prompts_are_named_where_there_are_several() -> None:
    both = pd.concat([table(A), table({s: 0.2 for s in A}, prompt="point")])
    with pytest.raises(UserError, match="auto and point"):
        paired_difference(both, both, "pet")
    assert paired_difference(both, table(B), "pet", prompt="auto")["value"] == pytest.approx(0.056)
    # filtered by hand, one way of asking can be held against another
    mixed = paired_difference(both[both.prompt == "auto"], both[both.prompt == "point"], "pet")
    assert mixed["prompt"] == "auto/point"
    assert mixed["notes"] == ["asked by auto and by point"]


@pytest.mark.parametrize(
    ("ask", "what", "meant"),
    [
        ({"first": "pte"}, "unknown scans 'pte'", "pet"),
        ({"first": "pet@adaptet"}, "unknown stage", "adapted"),
        ({"first": "pet@zero_shot"}, "no row of pet is of stage zero_shot", ""),
        ({"first": "pet", "metric": "nsd"}, "'nsd' was not computed", "evaluation.metrics"),
        ({"first": "pet", "prompt": "auot"}, "unknown prompt of pet", "auto"),
    ],
)
def test_mistakes_are_told_with_what_is_there(ask: dict[str, str], what: str, meant: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        paired_difference(table(A), table(B), **ask)
    assert meant in str(caught.value)


def test_several_models_cannot_be_told_apart() -> None:
    with pytest.raises(UserError, match="several values of 'model'"):
        paired_difference(pd.concat([table(A), table(A, model="n")]), table(B), "pet")


def test_signed_rank_has_no_value_where_nothing_differs() -> None:
    assert signed_rank([0.0, 0.0, 0.0, 0.0]) is None
    assert signed_rank([0.1, 0.2]) is None
    # all of one sign: the two extreme patterns of 2^8
    assert signed_rank(np.arange(1, 9) / 10) == pytest.approx(2 / 256)


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04 times 4 3 2 1, then no smaller than the one before
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
