"""A sweep's jobs neither see each other's environment nor command line, nor litter the working directory."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from umdseg.config.schema import Settings
from umdseg.config.sweep import plan
from umdseg.errors import UserError
from umdseg.runs.sweep import JobsFailed, run_sweep


def test_jobs_are_isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=3,4"])
    monkeypatch.setenv("WORLD_SIZE", "before")
    seen = []

    def job(settings: Settings) -> Path:
        seen.append(
            (settings.run.seed, list(sys.argv), os.environ.get("LOCAL_RANK"), os.environ["WORLD_SIZE"])
        )
        # what Lightning leaves behind
        os.environ.update(LOCAL_RANK="1", WORLD_SIZE="2")
        return tmp_path / str(settings.run.seed)

    sweep = plan("train", ["seed=3,4", f"runs_dir={tmp_path / 'runs'}"])
    folders = run_sweep("train", sweep, job)
    runs = f"runs_dir={tmp_path / 'runs'}"
    assert seen == [
        (3, ["train.py", "seed=3", runs], None, "before"),
        (4, ["train.py", "seed=4", runs], None, "before"),
    ]
    assert folders == [tmp_path / "3", tmp_path / "4"]
    assert sys.argv == ["train.py", "-m", "seed=3,4"]
    assert os.environ["WORLD_SIZE"] == "before"
    assert "LOCAL_RANK" not in os.environ
    assert list(work.iterdir()) == [], "nothing of Hydra's in the working directory"
    index = json.loads(next((tmp_path / "runs" / "sweeps").glob("*.json")).read_text())
    assert [entry["run"] for entry in index["jobs"]] == [str(tmp_path / "3"), str(tmp_path / "4")]


def test_defect_in_one_job_costs_only_that_job(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def job(settings: Settings) -> Path:
        if settings.run.seed == 1:
            raise ZeroDivisionError("by zero")
        return tmp_path / str(settings.run.seed)

    sweep = plan("train", ["seed=0,1,2", f"runs_dir={tmp_path}"])
    with pytest.raises(JobsFailed, match=r"1 of 3 jobs failed[\s\S]*seed=1") as caught:
        run_sweep("train", sweep, job)
    assert caught.value.folders == [tmp_path / "0", tmp_path / "2"]
    assert capfd.readouterr().err.count("Traceback") == 1
    assert _index(tmp_path)[1]["error"] == "ZeroDivisionError: by zero"


def test_stopped_sweep_leaves_its_index(tmp_path: Path) -> None:
    def job(settings: Settings) -> Path:
        if settings.run.seed == 1:
            raise KeyboardInterrupt
        return tmp_path / str(settings.run.seed)

    sweep = plan("train", ["seed=0,1,2", f"runs_dir={tmp_path}"])
    with pytest.raises(KeyboardInterrupt):
        run_sweep("train", sweep, job)
    assert _index(tmp_path)[0]["run"] == str(tmp_path / "0")
    assert _index(tmp_path)[1]["error"] == "did not end"


def test_home_is_home_in_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, work = tmp_path / "it's ${home}", tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    sweep = plan("train", ["seed=0,1", "runs_dir='~/runs'"])
    run_sweep("train", sweep, lambda settings: settings.runs_dir)
    assert [entry["run"] for entry in _index(home / "runs")] == [str(home / "runs")] * 2
    assert list(work.iterdir()) == []


def _index(runs: Path) -> list[dict[str, str]]:
    return json.loads(next((runs / "sweeps").glob("*.json")).read_text())["jobs"]


def test_failed_job_does_not_stop_the_others(tmp_path: Path) -> None:
    ran = []

    def job(settings: Settings) -> Path:
        ran.append(settings.run.seed)
        if settings.run.seed == 1:
            raise UserError("no disk")
        return tmp_path

    sweep = plan("train", ["seed=0,1,2", f"runs_dir={tmp_path}"])
    with pytest.raises(UserError, match="1 of 3 jobs failed") as caught:
        run_sweep("train", sweep, job)
    assert ran == [0, 1, 2]
    assert "seed=1" in str(caught.value)


def test_launcher_gets_options_of_hydra_once(tmp_path: Path) -> None:
    sweep = plan("train", ["seed=0,1", "hydra.verbose=false", f"runs_dir={tmp_path}"])
    assert len(run_sweep("train", sweep, lambda settings: tmp_path)) == 2
