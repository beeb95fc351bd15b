"""Runs that are stopped, go on, overfit, or cannot start: on the data set of boxes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from safetensors.torch import load_file

from umdseg.data import datamodule
from umdseg.runs import door
from umdseg.runs.progress import ProgressLines


def _ran(overrides: list[str], capfd: pytest.CaptureFixture[str]) -> Path:
    assert door.main("train", overrides) == 0
    return Path(capfd.readouterr().out.strip())


@pytest.mark.parametrize("per", ["null", "modality"])
def test_stopped_run_ends_as_if_it_had_not_been_stopped(
    per: str,
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # four steps are one epoch and a part of the next; stopped amid the first and amid the second
    overrides = [*small, "fit.steps=4", "callbacks.evaluate_before=false", "data.structures=[liver]"]
    overrides += [f"adapter.per={per}"]
    whole = _ran([*overrides, f"runs_dir={tmp_path / 'whole'}"], capfd)

    def stop_at(step: int) -> None:
        def stop(self: ProgressLines, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
            if trainer.global_step == step:
                raise KeyboardInterrupt

        monkeypatch.setattr(ProgressLines, "on_train_batch_end", stop)

    for step in (2, 4):
        stop_at(step)
        assert door.main("train", overrides) == 130
        out, err = capfd.readouterr()
        assert out == ""
        assert "the same command continues" in err
        (record,) = (tmp_path / "runs" / "train").glob("*/provenance.json")
        assert json.loads(record.read_text())["status"] == "stopped"
    monkeypatch.undo()
    monkeypatch.setenv("UMDSEG_CACHE", str(tmp_path / "cache"))
    parts = _ran(overrides, capfd)
    assert json.loads((parts / "provenance.json").read_text())["resumed"] == 2

    expected, got = (_weights(run / "adapter") for run in (whole, parts))
    assert expected.keys() == got.keys()
    assert {name.partition("/")[0] for name in expected} == ({"."} if per == "null" else {"ct", "pet"})
    assert any(value.any() for name, value in expected.items() if "lora_B" in name), "it was trained"
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-7, msg=name)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.relative_to(folder)}/{name}": value
        for path in folder.rglob("adapter_model.safetensors")
        for name, value in load_file(path).items()
    }


# with seed 0 the one shot is the second subject of the split, with seed 5 the first
@pytest.mark.parametrize("seed", [0, 5])
def test_overfit_scores_the_subject_it_trains_on(
    seed: int, small: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    trained: set[str] = set()
    patches = datamodule.PatchDataset

    def spy(subjects: Any, *rest: Any) -> Any:
        trained.update(subject.id for subject in subjects)
        return patches(subjects, *rest)

    monkeypatch.setattr(datamodule, "PatchDataset", spy)
    overrides = [*small, "debug=overfit", "fit.steps=1", "callbacks.evaluate_before=false", f"seed={seed}"]
    cases = pd.read_parquet(_ran([*overrides, "data.structures=[liver]"], capfd) / "cases.parquet")
    assert set(cases["subject"]) == trained
    assert len(trained) == 1
    assert set(cases["shots"]) == {1}


def test_checkpoint_that_is_none_is_named(
    small: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.ckpt").write_text("no checkpoint")
    overrides = [*small, f"ckpt_path={tmp_path / 'odd.ckpt'}", "callbacks.evaluate_before=false"]
    assert door.main("train", overrides) == 1
    err = capfd.readouterr().err
    assert "odd.ckpt" in err
    assert "Traceback" not in err


def test_baseline_without_anybody_to_learn_from_fails_before_scoring(
    small: list[str], manifest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tested"
    shutil.copytree(manifest.parent, folder)
    (folder / "subjects.csv").write_text(manifest.read_text().replace(",train,", ",test,"))
    overrides = [*small, f"data.manifest={folder / 'subjects.csv'}", "evaluation.baselines=[intensity]"]
    assert door.main("evaluate", overrides) == 1
    assert "split 'train'" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists(), "nothing was scored"
