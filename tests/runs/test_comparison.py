"""Lines side by side: numbers against those worked out by hand, and nothing unlike compared silently."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from umdseg.errors import UserError
from umdseg.runs.comparison import Asked, compare
from umdseg.runs.finished import FinishedRun
from umdseg.runs.lines import Line, lines_of
from umdseg.runs.pairs import adjusted, against_first, differences, side

CT = np.array([0.90, 0.86, 0.92, 0.88, 0.84])
PET = np.array([0.30, 0.22, 0.41, 0.35, 0.28])
WON = np.array([0.42, 0.47, 0.33, 0.39, 0.44])
ROOM = np.array([0.55, 0.60, 0.42, 0.47, 0.52])
ASKED = Asked(bootstrap=300)


def scores(won: np.ndarray = WON, forgot: float = 0.01) -> dict[tuple[str, str], list[float]]:
    return {
        ("zero_shot", "ct"): list(CT),
        ("zero_shot", "pet"): list(PET),
        ("adapted", "ct"): list(CT - forgot),
        ("adapted", "pet"): list(PET + won),
    }


@pytest.fixture
def write(run_folders: ModuleType, tmp_path: Path) -> Any:
    """Write a run: `write(name, scores, settings, **more)`; returns it read back."""

    def write(
        name: str, table: Any = None, settings: dict[str, Any] | None = None, **more: Any
    ) -> FinishedRun:
        rows = {k: more.pop(k) for k in ("subjects", "volume", "fold", "score_grid") if k in more}
        table = table if isinstance(table, list) else run_folders.rows(table or scores(), **rows)
        return FinishedRun.read(run_folders.folder(tmp_path / name, table, settings, **more))

    return write


def lines(*given: FinishedRun) -> list[Line]:
    return lines_of(given)[0]


def supervised(
    write: Any, name: str = "goal", room: np.ndarray = ROOM, modality: str = "pet", **more: Any
) -> FinishedRun:
    trained = {m: float(m == modality) for m in ("ct", "pet", "mr")}
    settings = {"model.name": "resenc_unet", "adapter.name": "full", "adapter.rank": None}
    table = {("supervised", "ct"): [0.1] * 5, ("supervised", "pet"): list(PET + room)}
    return write(name, table, {**settings, "data.train_modalities": trained}, **more)


def test_a_row_says_what_it_cost_and_what_came_of_it(write: Any) -> None:
    found = compare(lines(write("a", fit_seconds=9.0)), lines(supervised(write)), ASKED)
    (row,) = found["rows"]
    assert (row["modality"], row["prompt"], row["adapter"], row["size"]) == ("pet", "auto", "lora", 8)
    assert (row["one_route"], row["steps"], row["fit_seconds"], row["seed"]) == (1000, 200, 9.0, 0)
    assert row["zero_shot"] == pytest.approx(PET.mean())
    assert row["adapted"] == pytest.approx((PET + WON).mean())
    assert row["closure"]["value"] == pytest.approx(WON.mean() / (CT - PET).mean())
    assert row["forgetting"]["value"] == pytest.approx(0.01)
    assert row["won_back"]["value"] == pytest.approx(WON.mean() / ROOM.mean())
    assert row["won_back"]["goal"] == "full supervised"
    assert row["n_patients"] == 5


def test_closure_of_one_run_is_that_of_its_gap_json(write: Any) -> None:
    run = write("a", None, {"seed": 3, "evaluation.bootstrap": 300})
    (row,) = compare(lines(run), [], Asked())["rows"]
    # the writer's bootstrap has seed 0
    (told,) = [e for e in run.result["closure"] if e["metric"] == "dice"]
    assert row["closure"]["value"] == pytest.approx(told["value"])
    (same,) = compare(lines(write("b", None, {"evaluation.bootstrap": 300})), [], Asked())["rows"]
    assert same["closure"]["ci"] == pytest.approx(told["ci"])
    assert row["closure"]["ci"] != same["closure"]["ci"]


def test_folds_are_one_study_over_all_patients(write: Any, run_folders: ModuleType) -> None:
    parts = []
    for k, some in enumerate((slice(0, 2), slice(2, 5))):
        names = [f"p{i}" for i in range(5)][some]
        table = [
            {**row, "volume_ref_ml": 50.0}
            for row in run_folders.rows(
                {key: values[some] for key, values in scores().items()}, names, fold=k
            )
        ]
        parts.append(write(f"f{k}", table, {"data.fold": k}))
    (row,) = compare(lines(*parts), [], ASKED)["rows"]
    assert row["closure"]["value"] == pytest.approx(WON.mean() / (CT - PET).mean())
    assert (row["n_patients"], row["folds"]) == (5, [0, 1])
    assert row["closure"]["ci"] is not None


def test_scores_before_and_after_are_of_the_same_cells(write: Any, run_folders: ModuleType) -> None:
    table = run_folders.rows(scores())
    # a structure that is new to the model has no score before
    table += run_folders.rows(
        {("zero_shot", "pet"): [None] * 5, ("adapted", "pet"): [0.1] * 5}, structures=("tumour",)
    )
    (row,) = compare(lines(write("a", table)), [], ASKED)["rows"]
    assert row["adapted"] == pytest.approx((PET + WON).mean())
    new = run_folders.rows(
        {("zero_shot", "pet"): [None] * 5, ("adapted", "pet"): [0.1] * 5}, structures=("tumour",)
    )
    (row,) = compare(lines(write("b", new)), [], ASKED)["rows"]
    assert (row["zero_shot"], row["adapted"]) == (None, pytest.approx(0.1))
    assert row["closure"]["value"] is None
    assert row["closure"]["reason"]


def test_no_goal_is_no_share_and_says_why(write: Any) -> None:
    one = lines(write("a"))
    assert compare(one, [], ASKED)["rows"][0]["won_back"] is None
    other = compare(one, lines(supervised(write, modality="ct")), ASKED)["rows"][0]["won_back"]
    assert other == {"value": None, "ci": None, "reason": "no --against run was trained on it"}
    ct = compare(one, lines(supervised(write, "c", modality="mr")), Asked(modalities=("ct",), bootstrap=300))
    assert "no --against run was trained on it" in ct["rows"][0]["won_back"]["reason"]


def test_the_goal_trained_on_least_else_is_chosen(write: Any) -> None:
    both = write(
        "full",
        scores(ROOM / 2),
        {
            "adapter.name": "full",
            "adapter.rank": None,
            "data.train_modalities": {"ct": 1.0, "pet": 1.0, "mr": 0.0},
        },
    )
    alone = supervised(write)
    found = compare(lines(write("a")), lines(both, alone), ASKED)["rows"][0]["won_back"]
    assert found["value"] == pytest.approx(WON.mean() / ROOM.mean())
    full = compare(lines(write("b")), lines(both), ASKED)["rows"][0]["won_back"]
    assert full["value"] == pytest.approx(WON.mean() / (ROOM / 2).mean())
    twin = supervised(write, "twin", weights={"state_sha256": "others"})
    with pytest.raises(UserError, match="two goals for pet"):
        compare(lines(write("c")), lines(alone, twin), ASKED)


@pytest.mark.parametrize("settings", [{}, {"adapter.name": "full", "adapter.targets": "head.*"}])
def test_an_adapter_is_no_goal(write: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="not a supervised model"):
        compare(lines(write("a")), lines(write("b", None, {"adapter.rank": None, **settings})), ASKED)


def test_a_goal_on_other_labels_is_told_not_used(write: Any) -> None:
    found = compare(lines(write("a")), lines(supervised(write, volume=55.0)), ASKED)["rows"][0]["won_back"]
    assert found["value"] is None
    assert "other labels" in found["reason"]


def test_reference_scans_have_no_row_unless_asked_for(write: Any) -> None:
    one = lines(write("a"))
    assert [r["modality"] for r in compare(one, [], ASKED)["rows"]] == ["pet"]
    found = compare(one, [], Asked(modalities=("ct", "pet"), bootstrap=300))["rows"]
    assert [r["modality"] for r in found] == ["ct", "pet"]
    assert found[0]["closure"]["value"] is None
    with pytest.raises(UserError, match="unknown scans 'mr'"):
        compare(one, [], Asked(modalities=("mr",)))


@pytest.mark.parametrize(
    ("settings", "more", "told"),
    [
        (
            {},
            {"data": {"name": "petct", "fingerprint": "other"}},
            "other data (petct data0 and petct other)",
        ),
        ({}, {"weights": {"state_sha256": "other"}}, "other weights of the same base model"),
        ({}, {"code": "other"}, "other versions of the code"),
        ({"data.reference": "pet"}, {}, "data.reference ct and pet"),
        ({}, {"subjects": [f"s{i}" for i in range(4)] + ["t"]}, "scored in line 1 only: subjects s4"),
        ({}, {"volume": 31.0}, "have other labels: reference volumes differ in 5 of 5"),
    ],
)
def test_what_is_not_alike_is_said(
    write: Any, settings: dict[str, Any], more: dict[str, Any], told: str
) -> None:
    found = compare(lines(write("a"), write("b", None, {"adapter.rank": 4, **settings}, **more)), [], ASKED)
    assert any(told in note for note in found["notes"])
    assert compare(lines(write("c"), write("d", None, {"adapter.rank": 4})), [], ASKED)["notes"] == []


def test_a_tolerance_matters_to_surface_dice_only(write: Any, run_folders: ModuleType) -> None:
    table = [{**row, "nsd": row["dice"]} for row in run_folders.rows(scores())]
    both = lines(write("a", table), write("b", table, {"adapter.rank": 4, "evaluation.tolerance_mm": 3.0}))
    assert compare(both, [], ASKED)["notes"] == []
    notes = compare(both, [], Asked(metric="nsd", bootstrap=300))["notes"]
    assert notes == ["lines 1 and 2: evaluation.tolerance_mm 2.0 and 3.0"]


def fused(write: Any, run_folders: ModuleType) -> FinishedRun:
    table = run_folders.rows({("zero_shot", "ct"): list(CT), ("zero_shot", "pet"): list(PET)})
    table += run_folders.rows(
        {
            ("adapted", "ct+pet"): list(PET + WON + 0.05),
            ("adapted", "ct+pet/pet"): list(PET + WON - 0.02),
            ("adapted", "ct+pet/ct"): list(CT - 0.1),
        }
    )
    return write("fused", table, {"fusion.name": "late"}, result={"fusion": {"parameters": 40}})


def test_scans_given_together_are_rows_of_their_own(write: Any, run_folders: ModuleType) -> None:
    found = compare(lines(fused(write, run_folders), write("pet")), [], ASKED)
    held = [(r["line"], r["modality"], r["adapted"]) for r in found["rows"]]
    assert [h[:2] for h in held] == [(1, "pet"), (2, "pet"), (1, "ct+pet")]
    # given PET alone it stands for PET, as in gap.json
    assert held[0][2] == pytest.approx((PET + WON - 0.02).mean())
    assert found["rows"][0]["closure"]["value"] == pytest.approx((WON - 0.02).mean() / (CT - PET).mean())
    assert found["rows"][2]["zero_shot"] is None
    part = compare(lines(fused(write, run_folders)), [], Asked(modalities=("ct+pet/ct",), bootstrap=300))[
        "rows"
    ]
    assert part[0]["adapted"] == pytest.approx((CT - 0.1).mean())


def test_a_pair_of_other_inputs_names_its_labels(write: Any, run_folders: ModuleType) -> None:
    both = lines(fused(write, run_folders), write("pet", None, {"data.reference": "pet"}))
    (found,) = differences([(side("1:ct+pet", both), side("2:pet", both))], ASKED)
    assert found["value"] == pytest.approx(0.05)
    assert (found["first_scored_on"], found["second_scored_on"]) == (["ct"], ["pet"])
    assert (found["first_line"], found["second_line"], found["n_patients"]) == (1, 2, 5)
    # one side may say it for both, and none means every input that both have
    assert differences([(side("1:pet", both), side("2", both))], ASKED)[0]["value"] == pytest.approx(-0.02)
    every = differences([(side("1", both), side("2", both))], ASKED)
    assert [e["first"] for e in every] == ["ct", "pet"]


def test_sides_are_lines_or_folders(write: Any, run_folders: ModuleType, tmp_path: Path) -> None:
    both = lines(fused(write, run_folders), write("pet:2"))
    for text in ("2:pet", "pet:2:pet", f"{tmp_path / 'pet:2'}:pet"):
        line, rows = side(text, both)
        assert (line.number, str(rows)) == (2, "pet")
    line, rows = side(str(tmp_path / "pet:2"), both)
    assert (line.number, rows) == (2, None)
    assert str(side("1:ct+pet/ct@adapted", both)[1]) == "ct+pet/ct@adapted"
    with pytest.raises(UserError, match="'3' is no line") as caught:
        side("3:pet", both)
    assert "1: fused" in str(caught.value)


def test_every_line_against_the_first_with_holm_over_all(write: Any) -> None:
    three = lines(
        write("a"),
        write("b", scores(WON + 0.03), {"adapter.rank": 16}),
        write("c", scores(WON - 0.1), {"adapter.rank": 4}, volume=7.0),
    )
    found, notes = against_first(three, ASKED, ["ct", "pet"])
    assert [(e["first_line"], e["second_line"], e["first"]) for e in found] == [(2, 1, "ct"), (2, 1, "pet")]
    assert found[1]["value"] == pytest.approx(0.03)
    # CT is the same in both: no test; so one test is all there is
    assert found[0]["p"] is None
    assert found[1]["p_holm"] == found[1]["p"] == pytest.approx(2 / 32)
    assert len(notes) == 2
    assert all("other labels" in note for note in notes)
    assert [e["p_holm"] for e in adjusted([{"p": 0.01}, {"p": 0.04}])] == pytest.approx([0.02, 0.04])


def test_where_nothing_was_scored_before_every_input_has_rows(write: Any, run_folders: ModuleType) -> None:
    """A new class on one label: no gaps, so CT is an input like the others."""
    named = {"condition": "label_from_pet"}
    table = run_folders.rows({("adapted", "ct"): list(CT)}, **named) + run_folders.rows(
        {("adapted", "pet"): list(PET)}
    )
    both = lines(write("a", table, {"data.reference": "pet"}))
    found = compare(both, [], ASKED)["rows"]
    assert [r["modality"] for r in found] == ["ct", "pet"]
    assert found[0]["closure"]["value"] is found[0]["forgetting"]["value"] is None
    (pair,) = differences([(side("1:ct", both), side("1:pet", both))], ASKED)
    assert pair["value"] == pytest.approx((CT - PET).mean())
    assert (pair["first_scored_on"], pair["second_scored_on"], pair["notes"]) == (["pet"], ["pet"], [])


def test_a_goal_that_is_not_alike_is_called_by_its_name(write: Any) -> None:
    goal = supervised(write, code="other", volume=100.0)
    notes = compare(lines(write("a")), lines(goal), ASKED)["notes"]
    assert notes == ["line 1 and the goal full supervised: run by other versions of the code"]


def test_a_line_without_rows_is_told(write: Any) -> None:
    ct = write("ct", {("zero_shot", "ct"): list(CT)}, {"adapter.name": "none"})
    notes = compare(lines(write("a"), ct), [], ASKED)["notes"]
    assert notes == ["line 2, zero-shot, has rows of ct only"]
