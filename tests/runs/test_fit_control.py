"""Validation, early stop, average, prompts written down, old structures scored: one run with all of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from umdseg.runs import door


def test_a_run_with_everything_switched_on(small: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    given = [*small, "data.structures=[tumour]", "data.val_share=0.5", "fit.steps=4", "fit.validate_every=2"]
    given += ["fit.early_stop=1", "fit.ema=0.9", "fit.validation_patches=2", "fit.loss=dice_focal"]
    given += ["data.augmentation={pet_noise: 0.2, pet_blur_mm: 4, ct_window_hu: 20, mr_bias: 0.2}"]
    given += ["data.balance=scans", "fit.balance_prompts=true"]
    assert door.main("train", given) == 0
    out, err = capfd.readouterr()
    folder = Path(out.strip())
    assert "kept: the adapter of step" in err
    assert "old structures, for what was forgotten: liver" in err

    with open(folder / "logs" / "prompts.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    steps = {int(row["step"]) for row in rows}
    assert steps == set(range(max(steps) + 1))
    assert max(steps) in (1, 3)
    assert {row["structure"] for row in rows} == {"tumour"}
    assert {row["kind"] for row in rows} <= {"auto", "point", "clicks"}
    assert all((row["kind"] == "auto") == (row["clicks"] == "0") for row in rows)

    logged = pd.read_csv(folder / "logs" / "metrics.csv")
    assert logged["val/dice"].dropna().between(0, 1).all()
    # the mean over targets is that of PET alone: CT is the reference
    told = logged[["val/dice", "val/dice/pet", "val/dice/ct"]].dropna()
    assert len(told) in (1, 2)
    assert (told["val/dice"] == told["val/dice/pet"]).all()

    cases = pd.read_parquet(folder / "cases.parquet")
    assert set(cases["structure"]) == {"tumour"}
    old = pd.read_parquet(folder / "old_structures" / "cases.parquet")
    assert set(old["structure"]) == {"liver"}
    assert set(old["stage"]) == {"zero_shot", "adapted"}
    result = json.loads((folder / "gap.json").read_text())["old_structures"]
    assert result["structures"] == ["liver"]
    dice = old[(old["score_grid"] == "label") & (old["modality"] == "ct")].set_index("stage")["dice"]
    (entry,) = [e for e in result["forgetting"] if e["modality"] == "ct"]
    assert entry["value"] == pytest.approx(dice["zero_shot"] - dice["adapted"])
    assert 'id="old-structures"' in (folder / "report.html").read_text()


def test_a_new_structure_is_validated_where_it_has_an_adapter(
    small: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    given = [
        *small,
        "data.structures=[tumour]",
        "adapter.per=modality",
        "data.train_modalities={ct: 0, pet: 1}",
    ]
    given += ["data.val_share=0.5", "fit.steps=2", "fit.validate_every=1", "fit.validation_patches=1"]
    assert door.main("train", [*given, "callbacks.evaluate_before=false"]) == 0
    out, err = capfd.readouterr()
    assert err.count("ct is not validated") == 1
    metrics = pd.read_csv(Path(out.strip()) / "logs" / "metrics.csv")
    assert len(metrics["val/dice"].dropna()) == 2
    assert metrics["val/dice"].dropna().tolist() == metrics["val/dice/pet"].dropna().tolist()
    assert "val/dice/ct" not in metrics


def test_validation_without_subjects_is_refused_before_anything_is_scored(
    small: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert door.main("train", [*small, "fit.validate_every=2"]) != 0
    err = capfd.readouterr().err
    assert "in split 'val'" in err
    assert "data.val_share=0.2" in err
    assert not list((tmp_path / "runs").rglob("cases.parquet"))
