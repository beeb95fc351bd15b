"""Run folders read back: what is one line, what it is called, what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from umdseg.errors import UserError
from umdseg.runs.finished import FinishedRun
from umdseg.runs.lines import Line, lines_of

SCORES = {("zero_shot", "pet"): [0.2, 0.3, 0.1], ("adapted", "pet"): [0.6, 0.7, 0.5]}


@pytest.fixture
def write(run_folders: ModuleType, tmp_path: Path) -> Any:
    """Write a run: `write(name, settings, subjects=..., fold=..., **more)`."""

    def write(name: str, settings: dict[str, Any] | None = None, **more: Any) -> FinishedRun:
        fold = more.pop("fold", None)
        columns = {"fold": fold, **({"dataset": more.pop("dataset")} if "dataset" in more else {})}
        table = run_folders.rows(more.pop("scores", SCORES), more.pop("subjects", None), **columns)
        given = {**(settings or {}), **({"data.fold": fold} if fold is not None else {})}
        return FinishedRun.read(run_folders.folder(tmp_path / name, table, given, **more))

    return write


def folds(write: Any, name: str, settings: dict[str, Any] | None = None, **more: Any) -> list[FinishedRun]:
    return [
        write(f"{name}-{k}", settings, fold=k, subjects=[f"f{k}s{i}" for i in range(3)], **more)
        for k in range(3)
    ]


def test_folds_of_one_configuration_are_one_line(write: Any) -> None:
    lora, full = folds(write, "lora"), folds(write, "full", {"adapter.name": "full", "adapter.rank": None})
    mixed = [run for both in zip(lora[::-1], full, strict=True) for run in both]
    lines, notes = lines_of(mixed)
    assert [line.names for line in lines] == [["lora-0", "lora-1", "lora-2"], ["full-0", "full-1", "full-2"]]
    assert [line.label for line in lines] == ["lora 8", "full"]
    assert [line.folds for line in lines] == [[0, 1, 2]] * 2
    assert lines[0].cases["subject"].nunique() == 9
    assert notes == []


def test_what_does_not_change_the_result_does_not_part_folds(write: Any) -> None:
    places = [{"name": f"n{k}", "model.weights": f"/there/{k}.pt"} for k in range(2)]
    parts = [write(f"r{k}", places[k], fold=k, subjects=[f"{k}a", f"{k}b", f"{k}c"]) for k in range(2)]
    assert len(lines_of(parts)[0]) == 1


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("adapter.rank", 4, "lora 4"),
        ("fit.lr", 0.001, "lora 8, lr=0.001"),
        ("seed", 1, "lora 8, seed=1"),
        ("data.train_modalities", {"ct": 1.0, "pet": 1.0, "mr": 0.0}, "lora 8, on ct+pet"),
        ("data.train_modalities", {"ct": 0.0, "pet": 2.0, "mr": 0.0}, "lora 8, train_modalities.pet=2"),
        ("data.manifest", "others.csv", "lora 8, manifest=others.csv"),
        ("fusion.name", "late", "lora 8 + late"),
        ("model.name", "vista3d", "vista3d lora 8"),
    ],
)
def test_every_other_setting_makes_another_line_with_a_name(
    write: Any, setting: str, value: Any, told: str
) -> None:
    first = write("a-0", fold=0, subjects=["a", "b", "c"])
    other = write("b-1", {setting: value}, fold=1, subjects=["d", "e", "f"])
    lines, _ = lines_of([first, other])
    assert lines[1].label == told
    assert lines[0].label != lines[1].label


def test_sizes_of_other_methods(write: Any) -> None:
    parts = [
        write("a", {"adapter.name": "bottleneck", "adapter.rank": None, "adapter.reduction": 4}),
        write(
            "b",
            {"adapter.name": "bottleneck", "adapter.rank": None, "adapter.reduction": 4, "adapter.width": 16},
        ),
        write("c", {"adapter.name": "norm", "adapter.rank": None}),
        write("d", scores={("zero_shot", "pet"): [0.1, 0.2, 0.3]}),
        write(
            "e",
            {"adapter.name": "full", "adapter.rank": None},
            scores={("supervised", "pet"): [0.8, 0.7, 0.9]},
        ),
    ]
    assert [line.label for line in lines_of(parts)[0]] == [
        "bottleneck /4",
        "bottleneck width 16",
        "norm",
        "zero-shot",
        "full supervised",
    ]


def test_a_fold_that_is_there_twice_is_not_averaged_silently(write: Any) -> None:
    again = write("lora-0-22222222", fold=0, subjects=["f0s0", "f0s1", "f0s2"], code="other")
    lines, notes = lines_of([*folds(write, "lora"), again])
    assert len(lines) == 4
    assert "not one run per fold" in notes[0]
    assert lines[3].label == "lora 8 (22222222)"


def test_a_subject_tested_in_two_folds_is_refused(write: Any) -> None:
    parts = [write(f"r{k}", fold=k, subjects=["same", f"{k}b", f"{k}c"]) for k in range(2)]
    with pytest.raises(UserError, match="subject same is tested in two folds"):
        lines_of(parts)


def test_one_run_twice_is_refused(write: Any) -> None:
    run = write("a")
    with pytest.raises(UserError, match="named twice"):
        lines_of([run, run])


def test_folds_of_different_code_are_said(write: Any) -> None:
    parts = [write(f"r{k}", fold=k, subjects=[f"{k}a", f"{k}b", f"{k}c"], code=f"c{k}") for k in range(2)]
    lines, notes = lines_of(parts)
    assert len(lines) == 1
    assert notes == ["line 1: its folds were run by different versions of the code"]


def only(run: FinishedRun) -> Line:
    return lines_of([run])[0][0]


def test_what_one_route_weighs(write: Any) -> None:
    routed = {"trainable": 3000, "total": 100_000, "routes": ["pet", "mr"]}
    fused = {"fusion": {"kind": "late", "modalities": ["ct", "pet"], "parameters": 40}}
    cost = only(write("a", adapter=routed, fit_seconds=12.5)).cost()
    assert cost == {
        **{"trainable": 3000, "one_route": 1500, "routes": 2, "total": 100_000, "share": 0.03},
        **{"steps": 200, "fit_seconds": 12.5},
    }
    joined = only(write("b", adapter=routed, result=fused)).cost()
    assert (joined["trainable"], joined["one_route"]) == (3040, 1540)


def test_seconds_are_the_mean_over_folds_or_unknown(write: Any) -> None:
    parts = [
        write(f"r{k}", fold=k, subjects=[f"{k}a", f"{k}b", f"{k}c"], fit_seconds=10.0 + k) for k in range(2)
    ]
    assert lines_of(parts)[0][0].cost()["fit_seconds"] == 10.5
    older = write("r2", fold=2, subjects=["2a", "2b", "2c"])
    assert lines_of([*parts, older])[0][0].cost()["fit_seconds"] is None


def test_an_evaluation_was_not_fitted(write: Any) -> None:
    cost = only(write("a", {"task": "evaluate"}, fit_seconds=3.0)).cost()
    assert (cost["steps"], cost["fit_seconds"]) == (None, None)


def test_patients_of_folds_together(write: Any) -> None:
    names = [["m1", "m1_copy1", "m2"], ["m3", "m3_copy1", "m3_copy2"]]
    parts = [
        write(f"r{k}", {"data.name": "phantom"}, fold=k, subjects=own, dataset="phantom")
        for k, own in enumerate(names)
    ]
    assert lines_of(parts)[0][0].patients() == {"m1_copy1": "m1", "m3_copy1": "m3", "m3_copy2": "m3"}


def test_supervised_networks_of_other_runs_are_not_the_line(
    write: Any, run_folders: ModuleType, tmp_path: Path
) -> None:
    table = run_folders.rows(SCORES)
    table += run_folders.rows({("supervised", "pet"): [0.9, 0.8, 0.7]}, adapter="full", model="unet")
    run = FinishedRun.read(run_folders.folder(tmp_path / "a", table))
    assert set(run.cases["stage"]) == {"zero_shot", "adapted"}
    assert only(run).label == "lora 8"


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json", "gap.json", "cases.parquet"])
def test_what_is_missing_is_named(write: Any, tmp_path: Path, name: str) -> None:
    write("a")
    (tmp_path / "a" / name).unlink()
    with pytest.raises(UserError) as caught:
        FinishedRun.read(tmp_path / "a")
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json", "gap.json"])
def test_what_is_damaged_is_named(write: Any, tmp_path: Path, name: str) -> None:
    write("a")
    (tmp_path / "a" / name).write_text("[{")
    with pytest.raises(UserError, match="cannot be used") as caught:
        FinishedRun.read(tmp_path / "a")
    assert name in str(caught.value)


def test_a_run_that_did_not_end_is_refused(write: Any, tmp_path: Path) -> None:
    write("a")
    record = json.loads((tmp_path / "a" / "provenance.json").read_text())
    (tmp_path / "a" / "provenance.json").write_text(json.dumps({**record, "status": "stopped"}))
    with pytest.raises(UserError, match="not finished: stopped"):
        FinishedRun.read(tmp_path / "a")
