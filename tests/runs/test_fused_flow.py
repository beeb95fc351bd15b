"""train.py and evaluate.py with a fusion, from end to end, on boxes and an untrained small model."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from umdseg.runs import door

KEYS = ["modality", "subset", "structure"]


def _run(kind: str, overrides: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    assert door.main(kind, overrides) == 0
    out, err = capfd.readouterr()
    return Path(out.splitlines()[-1]), err


def _rows(folder: Path, stage: str) -> pd.DataFrame:
    cases = pd.read_parquet(folder / "cases.parquet")
    return cases[(cases["score_grid"] == "label") & (cases["stage"] == stage)].set_index(KEYS)


def test_a_fusion_is_trained_scored_on_all_subsets_and_scored_again(
    small: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = [*small, "fusion=gated", "adapter.per=modality", "adapter.rank=2", "fit.steps=2"]
    # scored again below without naming it: the window is the adapter's, or the scores would differ
    wanted.append("model.window=[24,24,32]")
    folder, err = _run("train", [*wanted, "fit.validate_every=2", "fit.validation_patches=1", "data.val_share=0.5"], capfd)
    assert "fusion=gated: ct and pet together, starting from ct" in err
    before, after = _rows(folder, "zero_shot"), _rows(folder, "adapted")
    structures = ("liver", "tumour")
    # before: the plain model on single scans; after: every subset of the pair
    assert set(before.index) == {(m, "", s) for m in ("ct", "pet") for s in structures}
    assert set(before["fusion"]) == {"none"}
    assert set(after.index) == {("ct+pet", part, s) for part in ("ct", "pet", "ct+pet") for s in structures}
    assert set(after["fusion"]) == {"gated"}
    assert set(after["status"]) == {"ok"}
    assert {path.name for path in folder.iterdir()} >= {"adapter", "fusion", "report.html"}
    told = json.loads((folder / "gap.json").read_text())
    state = load_file(folder / "fusion" / "fusion.safetensors")
    assert told["fusion"]["parameters"] == sum(value.numel() for value in state.values())
    # the scan that is there alone is compared with the base model on it
    assert [entry["reference"] for entry in told["forgetting"]] == ["ct"] * len(told["forgetting"]) != []
    assert {entry["target"] for entry in told["closure"]} == {"pet"}
    # zero at the start, so whatever is not zero was trained
    assert any(torch.count_nonzero(v) for k, v in state.items() if "project" in k or "absent" in k)
    metrics = pd.read_csv(folder / "logs" / "metrics.csv")
    assert {"val/dice", "val/dice/ct+pet", "val/dice/ct", "val/dice/pet"} <= set(metrics.columns)

    again, _ = _run("evaluate", [*small, f"adapter.path={folder}"], capfd)
    found = _rows(again, "adapted")
    pd.testing.assert_series_equal(found["dice"].sort_index(), after["dice"].sort_index(), atol=1e-6)
    _, err = _run("evaluate", [*small, f"adapter.path={folder / 'adapter'}"], capfd)
    assert "scored without the fusion trained beside it" in err
    # the adapter of another training
    facts = folder / "fusion" / "umdseg_fusion.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "adapter": "0" * 64}))
    assert door.main("evaluate", [*small, f"adapter.path={folder}"]) == 1
    assert "trained with another adapter" in capfd.readouterr().err


def test_a_fusion_alone_is_trained_and_scored(small: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    wanted = [*small, "fusion=late", "fusion.subsets=false", "adapter=none", "fit.steps=2", "fusion.dropout=0"]
    folder, _ = _run("train", [*wanted, "data.structures=[liver]", "model.window=[32,24,24]"], capfd)
    after = _rows(folder, "adapted")
    assert set(after.index) == {("ct+pet", "ct+pet", "liver")}
    assert not (folder / "adapter").exists()
    facts = json.loads((folder / "fusion" / "umdseg_fusion.json").read_text())
    assert (facts["structures"], facts["window"]) == (["liver"], [32, 24, 24])
    state = load_file(folder / "fusion" / "fusion.safetensors")
    assert torch.count_nonzero(state["weights"][0, 0])
    again, _ = _run("evaluate", [*small, "data.structures=[liver]", f"fusion.path={folder}"], capfd)
    found = _rows(again, "adapted")
    assert found["dice"].tolist() == pytest.approx(after["dice"].tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("more", "path"),
    [
        (["fusion=early", "adapter.per=modality"], "adapter.per"),
        (["fusion=gated", "data.train_modalities={ct: 0, pet: 1, mr: 0}"], "data.train_modalities"),
        (["fusion=late", "fusion.dropout=1"], "fusion.dropout"),
        (["fusion=gated", "adapter.per=tracer"], "adapter.per"),
        (["fusion=gated", "data.train_modalities={ct: 0, pet: 1, mr: 1}"], "data.reference"),
        (["fusion=early", "model=sam_vit_b", "prompt=point"], "fusion"),
        (["fusion=gated", "model=voxtell", "model.folder=nowhere"], "one at a time"),
        (["fusion=late", "model=nninteractive", "model.folder=nowhere", "prompt=point"], "finished masks"),
        (["fusion=gated", "adapter=depth"], "adapter"),
        (["fusion=gated", "fit.export_weights=x.safetensors"], "fit.export_weights"),
    ],
)
def test_what_cannot_be_fused_is_said_before_anything_is_built(
    small: list[str], capfd: pytest.CaptureFixture[str], more: list[str], path: str
) -> None:
    assert door.main("train", [*small, *more]) == 2
    assert path in capfd.readouterr().err
