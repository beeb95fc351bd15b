"""What a comparison says to people, and its rows for a spreadsheet."""

from __future__ import annotations

from typing import Any

import pytest

from umdseg.report.comparison import frame, sentence, text


def pair(**more: Any) -> dict[str, Any]:
    names = {"first": "ct+pet", "second": "pet", "first_line": 1, "second_line": 2}
    names |= {"first_label": "lora 8 + late", "second_label": "lora 8"}
    names |= {"first_scored_on": ["ct"], "second_scored_on": ["pet"], "metric": "dice", "prompt": "auto"}
    counts = {"n_patients": 18, "n_subjects": 18, "n_structures": 1, "p": 0.0123, "p_holm": 0.0123}
    return {**names, **counts, "value": 0.05, "ci": [0.01, 0.09], "notes": [], **more}


def test_a_difference_is_said_as_one_would_write_it() -> None:
    assert sentence(pair()) == (
        "CT+PET (1: lora 8 + late) beats PET (2: lora 8) by 0.050 [0.010, 0.090] Dice, "
        "n = 18 patients × 1 structure, Wilcoxon p = 0.012; prompt auto, "
        "scored on the CT label and on the PET label"
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"value": -0.05, "ci": [-0.09, -0.01]},
            "is worse than PET (2: lora 8) by 0.050 [0.010, 0.090] Dice",
        ),
        ({"value": 0.01, "ci": [-0.03, 0.05]}, "are not told apart: difference 0.010 [-0.030, 0.050]"),
        (
            {"metric": "hd95", "value": -3.0, "ci": [-5.0, -1.0]},
            "beats PET (2: lora 8) by 3.000 [1.000, 5.000] HD95",
        ),
        ({"metric": "hd95", "value": 3.0, "ci": [1.0, 5.0]}, "is worse than"),
        ({"ci": None}, "are not told apart: difference 0.050 Dice"),
        ({"p_holm": 0.03}, "Wilcoxon p = 0.012 (Holm 0.03)"),
        ({"second": "ct+pet/ct@zero_shot"}, "beats CT+PET given CT zero-shot (2: lora 8)"),
        (
            {"value": None, "ci": None, "reason": "nothing is scored in both"},
            "cannot be compared: nothing is",
        ),
        ({"first_scored_on": ["pet"]}, "scored on the PET label"),
    ],
)
def test_direction_and_doubt_are_said(more: dict[str, Any], said: str) -> None:
    assert said in sentence(pair(**more))


def row(line: int, **more: Any) -> dict[str, Any]:
    head = {
        "line": line,
        "label": f"lora {2**line}",
        "modality": "pet",
        "prompt": "auto",
        "seed": 0,
        "steps": 200,
    }
    cost = {"trainable": 2000, "one_route": 1000, "routes": 2, "share": 0.02, "fit_seconds": 12.4}
    scores = {"zero_shot": 0.2, "adapted": 0.6, "n_patients": 8, "n_subjects": 8, "n_structures": 13}
    closure = {"value": 0.7, "ci": [0.6, 0.8]}
    forgetting = {"value": None, "ci": None, "reason": "nobody has CT"}
    found = {**head, **cost, **scores, "closure": closure, "won_back": None, "forgetting": forgetting}
    return {**found, "folds": [0, 1], **more}


def comparison(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "metric": "dice",
        "score_grid": "label",
        "rows": list(rows),
        "notes": ["lines 1 and 2: other data"],
        **more,
    }


def words(line: str) -> str:
    return " ".join(line.split())


def test_what_all_lines_share_stands_above_the_table() -> None:
    lines = list(text(comparison(row(1), row(2))))
    assert lines[0] == "PET, prompt auto: Dice; 8 patients × 13 structures; seed 0; 200 steps"
    assert words(lines[1]) == "# parameters share fit s zero-shot adapted closure"
    assert words(lines[2]) == "1 lora 2 1,000 of 2,000 2 % 12 0.200 0.600 0.700 [0.600, 0.800]"
    assert lines[4] == "  lines 1, 2: forgetting: nobody has CT"
    assert lines[-1] == "note: lines 1 and 2: other data"


def test_what_differs_has_a_column() -> None:
    won = {"value": 0.8, "ci": [0.7, 0.9], "notes": []}
    lines = list(text(comparison(row(1), row(2, seed=1, steps=None, n_patients=7, routes=1, won_back=won))))
    assert "patients" not in lines[0]
    names = lines[1].split()
    assert {"seed", "n", "steps", "won"} <= set(names)
    assert "7 × 13" in lines[3]
    assert "0.800 [0.700, 0.900]" in lines[3]
    assert "1,000 of" not in lines[3]


def test_differences_to_the_first_line_stand_in_the_table() -> None:
    minus = pair(first="pet", second="pet", first_line=2, second_line=1, p_holm=0.024)
    lines = list(text(comparison(row(1), row(2), against_first=[minus])))
    assert lines[1].endswith("minus line 1  p (Holm)")
    assert lines[2].split()[-2:] == ["–", "–"]
    assert lines[3].endswith("0.050 [0.010, 0.090]     0.024")


def test_spreadsheet_has_numbers_and_reasons_in_cells_of_their_own() -> None:
    found = frame([row(1), row(2, won_back={"value": 0.8, "ci": [0.7, 0.9]})])
    assert found["closure_low"].tolist() == [0.6, 0.6]
    assert found["forgetting_reason"].tolist() == ["nobody has CT"] * 2
    assert found["won_back"].isna().tolist() == [True, False]
    assert found["won_back_high"].iloc[1] == 0.9
    assert found["folds"].tolist() == ["0 1", "0 1"]
