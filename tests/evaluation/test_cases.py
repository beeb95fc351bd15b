"""The case table: columns, types, files, parts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from umdseg.errors import UserError
from umdseg.evaluation.cases import (
    COLUMNS,
    case_table,
    merge,
    merge_parts,
    on_grid,
    read_cases,
    write_cases,
    write_part,
)

DESIGN = (
    "dataset, subject, patient, site, tracer, split, fold, seed, shots, pair, modality, subset, "
    "structure, stage, model, adapter, fusion, prompt, clicks, condition, score_grid, dice, nsd, hd95, "
    "assd, auc, volume_ref_ml, volume_pred_ml, fn_ml, fp_ml, seconds, peak_gb, status"
)


def row(subject: str = "a", **more: object) -> dict[str, object]:
    return {
        "subject": subject,
        "modality": "pet",
        "structure": "liver",
        "stage": "zero_shot",
        "status": "ok",
        **more,
    }


def test_columns_are_those_of_the_design() -> None:
    assert ", ".join(COLUMNS) == DESIGN
    assert list(case_table([row()]).columns) == list(COLUMNS)


def test_files_give_back_the_table_and_undefined_stays_undefined(tmp_path) -> None:
    table = case_table(
        [row(dice=0.5, seed=3, clicks=1), row("b", status="empty_reference"), row("007", dice=0.25)]
    )
    write_cases(table, tmp_path)
    for path in (tmp_path, tmp_path / "cases.csv"):
        pd.testing.assert_frame_equal(read_cases(path), table)
    raw = pd.read_parquet(tmp_path / "cases.parquet")
    assert raw["dice"].isna().tolist() == [False, True, False]
    assert "NaN" not in (tmp_path / "cases.csv").read_text()


def test_identifiers_that_look_like_numbers_stay_texts(tmp_path) -> None:
    table = case_table([row("001", site="07", condition="1.0", dice=0.5), row("010", site="08", dice=0.25)])
    write_cases(table, tmp_path)
    found = read_cases(tmp_path / "cases.csv")
    assert found.subject.tolist() == ["001", "010"]
    pd.testing.assert_frame_equal(found, table)


def test_later_rows_replace_earlier_ones_of_the_same_key() -> None:
    table = merge([case_table([row(dice=0.1), row("b", dice=0.2)]), case_table([row(dice=0.9)])])
    assert dict(zip(table.subject, table.dice, strict=True)) == {"a": 0.9, "b": 0.2}


def test_stages_and_prompts_are_different_rows() -> None:
    assert (
        len(
            merge(
                [case_table([row(prompt="auto"), row(prompt="point"), row(prompt="auto", stage="adapted")])]
            )
        )
        == 3
    )


def test_parts_of_all_ranks_are_joined(tmp_path) -> None:
    write_part(case_table([row("b", dice=0.2)]), tmp_path, "zero_shot", 1)
    write_part(case_table([row("a", dice=0.1)]), tmp_path, "zero_shot", 0)
    assert merge_parts(tmp_path, "zero_shot", 2).subject.tolist() == ["a", "b"]
    assert not (tmp_path / "parts").exists()


def test_a_missing_part_is_an_error_and_the_others_stay(tmp_path) -> None:
    kept = write_part(case_table([row()]), tmp_path, "zero_shot", 0)
    with pytest.raises(UserError, match="part"):
        merge_parts(tmp_path, "zero_shot", 2)
    assert kept.exists()


def test_unknown_columns_and_statuses_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean: dice"):
        case_table([row(dicee=1.0)])
    with pytest.raises(UserError, match="status"):
        case_table([row(status="fine")])
    with pytest.raises(UserError, match="no case table"):
        read_cases(Path("/nowhere/run"))


def test_rows_of_one_score_grid_and_both_survive_a_merge() -> None:
    table = case_table([row(), row("b", score_grid="label"), row("b", score_grid="common", dice=0.5)])
    assert list(on_grid(table).subject) == ["a", "b"]
    assert list(on_grid(table, "common").dice) == [0.5]
    assert len(merge([table, table])) == 3
    without = table.drop(columns="score_grid")
    assert len(on_grid(without)) == 3
    assert len(on_grid(without, "common")) == 0


def test_means_and_the_median_subject_rest_on_the_labels_grid() -> None:
    from umdseg.evaluation import summarise
    from umdseg.evaluation.predictions import median_subjects

    told = {"a": 0.2, "b": 0.5, "c": 0.9}
    rows = [row(s, dice=d, prompt="auto", model="m", score_grid="label") for s, d in told.items()]
    # on the common grid c would be in the middle
    moved = {"a": 0.9, "b": 0.1, "c": 0.5}
    rows += [row(s, dice=d, prompt="auto", model="m", score_grid="common") for s, d in moved.items()]
    table = case_table(rows)
    means = summarise(table, n_resamples=100).set_index("structure")["mean"]
    assert means["macro"] == pytest.approx((0.2 + 0.5 + 0.9) / 3)
    assert median_subjects(table, 1) == ["b"]


def test_rows_that_name_no_patient_are_of_the_subject_itself(tmp_path) -> None:
    table = case_table([row("a", patient="p"), row("b")])
    assert table.patient.tolist() == ["p", "b"]
    # files written before the column was there
    for old in (tmp_path / "cases.csv", tmp_path / "cases.parquet"):
        without = table.drop(columns="patient")
        without.to_csv(old, index=False) if old.suffix == ".csv" else without.to_parquet(old, index=False)
        assert read_cases(old).patient.tolist() == ["a", "b"]


def test_means_have_intervals_over_patients() -> None:
    from umdseg.evaluation import summarise

    scores = {"a": 0.2, "b": 0.5, "c": 0.9, "d": 0.4}
    rows = [row(s, dice=d, prompt="auto", model="m") for s, d in scores.items()]
    copies = [{**r, "subject": f"{r['subject']}2", "patient": r["subject"]} for r in rows]
    one, both = (
        summarise(case_table(table)).set_index("structure").loc["macro"] for table in (rows, rows + copies)
    )
    assert (both["n_subjects"], both["n_patients"]) == (8, 4)
    assert both[["mean", "low", "high"]].tolist() == pytest.approx(one[["mean", "low", "high"]].tolist())
