"""Small parts of a run: progress lines, exported weights, the zero-shot store, adapter cards."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from umdseg.backbones import load_backbone
from umdseg.config.check import check
from umdseg.runs.export import export_weights
from umdseg.runs.progress import progress_line
from umdseg.runs.zero_shot import ZeroShotStore


def test_progress_line() -> None:
    assert progress_line(120, 300, 20, 10.0, 0.5) == "fit 120/300, loss 0.5000, 2.0 steps/s, 1:30 left"
    assert progress_line(1, 3, 1, 4.0, None) == "fit 1/3, 4.0 s/step, 0:08 left"
    assert progress_line(5, 9, 0, 0.0, None) == "fit 5/9, -, 0:00 left"


def test_exported_weights_load_again(tmp_path: Path) -> None:
    torch.manual_seed(3)
    made = load_backbone("vista3d_tiny", "random")
    path = tmp_path / "w.safetensors"
    digest = export_weights(made, path, {"seed": 3})
    loaded = load_backbone("vista3d_tiny", str(path))
    assert loaded.weights_sha256 == digest
    for name, value in made.net.state_dict().items():
        got = loaded.net.state_dict()[name]
        assert got.dtype == value.dtype
        # float16 keeps eleven significant bits
        torch.testing.assert_close(got, value, rtol=2**-11, atol=1e-7)
    record = json.loads((tmp_path / "w.json").read_text())
    assert (record["seed"], record["sha256"], record["bytes"]) == (3, digest, path.stat().st_size)


def test_the_record_of_exported_weights_goes_without_dice() -> None:
    from umdseg.evaluation.cases import case_table
    from umdseg.runs.train import _macro_dice

    head = {"subject": "a", "structure": "liver", "prompt": "auto", "modality": "ct", "status": "ok"}
    table = case_table([{**head, "dice": 0.5}, {**head, "subject": "b", "dice": 0.75, "nsd": 0.1}])
    assert _macro_dice(table) == {"ct/auto": 0.625}
    assert _macro_dice(table.assign(dice=float("nan"))) == {}


def test_weights_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    backbone = load_backbone("vista3d_tiny", "random")
    with torch.no_grad():
        next(iter(backbone.net.parameters())).fill_(1e6)
    with pytest.raises(ValueError, match="float16"):
        export_weights(backbone, tmp_path / "w.safetensors", {})
    assert not (tmp_path / "w.safetensors").exists()


def test_zero_shot_store(tmp_path: Path) -> None:
    def store(*overrides: str, data: str = "d", weights: str = "w") -> ZeroShotStore:
        settings = check("train", [f"runs_dir={tmp_path}", *overrides])
        return ZeroShotStore.of(settings, data, weights, ["a", "b"], ["liver"])

    first = store()
    run = tmp_path / "run"
    assert first.get(run) is None
    (run / "predictions" / "a").mkdir(parents=True)
    (run / "predictions" / "a" / "pet__zero_shot__auto.nii.gz").write_text("z")
    (run / "predictions" / "a" / "pet__adapted__auto.nii.gz").write_text("a")
    first.put(pd.DataFrame([{"subject": "a", "dice": 0.5, "status": "ok"}]), run)

    other = tmp_path / "other"
    known = store("adapter=full", "fit.steps=7", "evaluation.bootstrap=500").get(other)
    assert known is not None
    assert known["dice"].tolist() == [0.5]
    assert [path.name for path in (other / "predictions" / "a").iterdir()] == ["pet__zero_shot__auto.nii.gz"]
    for changed in (
        store(data="e"),
        store(weights="v"),
        store("prompt=auto"),
        store("evaluation.overlap=0.5"),
        store("model=vista3d"),
    ):
        assert changed.get(tmp_path / "none") is None


def test_another_option_of_the_model_is_another_zero_shot_result(tmp_path: Path) -> None:
    def store(*overrides: str) -> ZeroShotStore:
        settings = check("evaluate", ["model=vista3d", f"runs_dir={tmp_path}", *overrides])
        return ZeroShotStore.of(settings, "d", "w", ["a"], ["liver"])

    assert store("+model.bundle_parity=true") != store()
    # where the weights lie is no matter, their content is hashed
    assert store("model.weights=elsewhere.pt", "model.accept_licence=true") == store()


def test_wandb_id_is_kept(tmp_path: Path) -> None:
    from umdseg.runs.trainer import wandb_id

    assert wandb_id(tmp_path) == wandb_id(tmp_path)
    assert wandb_id(tmp_path) != wandb_id(tmp_path / "other")
