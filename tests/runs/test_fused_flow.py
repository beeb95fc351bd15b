"""train.py and evaluate.py with a fusion, from end to end, on boxes and an untrained small model."""

from __future__ import annotations

import csv
import json
import re
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
    folder, err = _run(
        "train", [*wanted, "fit.validate_every=2", "fit.validation_patches=1", "data.val_share=0.5"], capfd
    )
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
    scored = metrics[["val/dice", "val/dice/ct+pet", "val/dice/ct", "val/dice/pet"]].dropna()
    assert scored["val/dice"].tolist() == scored["val/dice/ct+pet"].tolist() != []
    # so that it could not be that of a part by chance
    assert scored["val/dice/ct+pet"].tolist() != scored["val/dice/pet"].tolist()

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
    wanted = [
        *small,
        "fusion=late",
        "fusion.subsets=false",
        "adapter=none",
        "fit.steps=2",
        "fusion.dropout=0",
    ]
    folder, _ = _run("train", [*wanted, "data.structures=[liver]", "model.window=[32,24,24]"], capfd)
    after = _rows(folder, "adapted")
    assert set(after.index) == {("ct+pet", "ct+pet", "liver")}
    assert not (folder / "adapter").exists()
    facts = json.loads((folder / "fusion" / "umdseg_fusion.json").read_text())
    assert (facts["structures"], facts["preprocessing"]["window"]) == (["liver"], [32, 24, 24])
    state = load_file(folder / "fusion" / "fusion.safetensors")
    assert torch.count_nonzero(state["weights"][0, 0])
    again, _ = _run("evaluate", [*small, "data.structures=[liver]", f"fusion.path={folder}"], capfd)
    found = _rows(again, "adapted")
    assert found["dice"].tolist() == pytest.approx(after["dice"].tolist(), abs=1e-6)
    # named as a run it is found, too; which subsets are scored is the caller's
    liver = [*small, "data.structures=[liver]", f"adapter.path={folder}"]
    again, _ = _run("evaluate", [*liver, "fusion.subsets=true"], capfd)
    found = _rows(again, "adapted")
    assert set(found.index) == {("ct+pet", part, "liver") for part in ("ct", "pet", "ct+pet")}
    whole = found.loc[[("ct+pet", "ct+pet", "liver")], "dice"]
    assert whole.tolist() == pytest.approx(after["dice"].tolist(), abs=1e-6)
    # nothing was left out, and nobody lacks a scan
    with open(folder / "logs" / "prompts.csv", newline="") as stream:
        assert {(row["modality"], row["subset"]) for row in csv.DictReader(stream)} == {("ct+pet", "ct+pet")}
    assert door.main("evaluate", [*liver, "fusion.dropout=0.5"]) == 1
    assert "fusion.dropout" in capfd.readouterr().err


def test_without_ct_mr_leads_and_ct_cannot_be_the_reference(
    small: list[str], manifest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # the second one to train on has no PET either
    rows = [row for row in manifest.read_text().splitlines() if ",ct," not in row and "s1,pet" not in row]
    kept = [re.sub(r",(s\d)", rf",{manifest.parent}/\1", row) for row in rows]
    (tmp_path / "mine.csv").write_text("\n".join(kept) + "\n")
    (tmp_path / "mine.yaml").write_text(manifest.with_suffix(".yaml").read_text())
    own = [item for item in small if not item.startswith(("data=", "data.manifest="))]
    own += [f"data.manifest={tmp_path / 'mine.csv'}", "experiment=missing_modality", "fit.steps=4"]
    own += ["adapter.rank=2", "model.window=[24,24,24]", "callbacks.evaluate_before=false"]
    own.append("fusion.subsets=false")
    assert door.main("train", [*own, "data=petct", "data.modalities=[pet,mr]"]) == 1
    err = capfd.readouterr().err
    assert "data.reference" in err
    assert "pet or mr" in err
    folder, err = _run("train", [*own, "data=petmri"], capfd)
    assert "pet and mr together, starting from mr" in err
    facts = json.loads((folder / "fusion" / "umdseg_fusion.json").read_text())
    assert (facts["modalities"], facts["order"]) == (["pet", "mr"], ["mr", "pet"])
    with open(folder / "logs" / "prompts.csv", newline="") as stream:
        asked = {(row["subject"], row["modality"], row["subset"]) for row in csv.DictReader(stream)}
    assert {modality for _, modality, _ in asked} == {"pet+mr"}
    assert {subset for subject, _, subset in asked if subject == "s1"} <= {"mr"}
    assert {subset for subject, _, subset in asked if subject == "s0"} <= {"pet", "mr", "pet+mr"}


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
