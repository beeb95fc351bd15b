"""Means over seeds: only runs that differ in their seed belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from umdseg.config.schema import Settings
from umdseg.config.sweep import plan
from umdseg.runs.seeds import across_seeds, told
from umdseg.runs.sweep import run_sweep


def run(folder: Path, name: str, closure: float | None, lost: float) -> Path:
    head = {"reference": "ct", "target": "pet", "metric": "dice", "prompt": "auto", "stage": "adapted"}
    old = {"modality": "ct", "metric": "dice", "prompt": "auto", "stage": "adapted", "value": lost}
    result = {"gaps": [{**head, "gap": 0.4}], "closure": [{**head, "value": closure}], "forgetting": []}
    (folder / name).mkdir()
    (folder / name / "gap.json").write_text(json.dumps({**result, "old_structures": {"forgetting": [old]}}))
    return folder / name


def test_mean_and_spread_are_over_the_seeds_of_one_experiment(tmp_path: Path) -> None:
    runs = [
        (["adapter=lora", "seed=0"], run(tmp_path, "a", 0.6, 0.01)),
        (["adapter=full", "seed=0"], run(tmp_path, "b", 0.9, 0.05)),
        (["adapter=lora", "seed=1"], run(tmp_path, "c", 0.8, 0.03)),
        (["adapter=lora", "seed=2"], run(tmp_path, "d", 0.7, 0.02)),
    ]
    (group,) = across_seeds(runs)
    assert (group["overrides"], group["seeds"]) == (["adapter=lora"], ["0", "1", "2"])
    found = {n["kind"]: (n["mean"], n["sd"]) for n in group["numbers"]}
    assert found["closure"] == pytest.approx((0.7, 0.1))
    assert found["gap"] == pytest.approx((0.4, 0.0))
    assert found["forgetting of old structures"] == pytest.approx((0.02, 0.01))
    lines = list(told([group]))
    assert lines[0].startswith("3 seeds, adapter=lora")
    assert "  closure ct pet dice auto adapted: 0.700 ± 0.100" in lines


def test_a_seed_that_changes_who_is_tested_is_said_to(tmp_path: Path) -> None:
    runs = [([f"seed={seed}"], run(tmp_path, str(seed), 0.5, 0.0)) for seed in range(3)]
    (unknown,) = across_seeds(runs)
    for prints, same in ((("x", "x", "x"), True), (("x", "x", "y"), False)):
        for (_, folder), fingerprint in zip(runs, prints, strict=True):
            (folder / "provenance.json").write_text(json.dumps({"data": {"fingerprint": fingerprint}}))
        (group,) = across_seeds(runs)
        assert group["same_data"] is same
        head = next(iter(told([group])))
        assert head.endswith("over seeds" if same else "which also changed the subjects or their split")
    assert unknown["same_data"] is None
    assert next(iter(told([unknown]))).endswith("over seeds")


def test_what_one_run_leaves_undefined_has_no_mean(tmp_path: Path) -> None:
    runs = [(["seed=0"], run(tmp_path, "a", None, 0.0)), (["seed=1"], run(tmp_path, "b", 0.5, 0.0))]
    assert "closure" not in {n["kind"] for n in across_seeds(runs)[0]["numbers"]}
    assert across_seeds(runs[:1]) == []


def test_a_sweep_over_seeds_says_what_it_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def job(settings: Settings) -> Path:
        seed = settings.run.seed
        return run(tmp_path, f"{settings.adapter.name}{seed}", 0.5 + 0.1 * seed, 0.0)

    sweep = plan("train", ["seed=0,1,2", "adapter=lora,full", f"runs_dir={tmp_path / 'runs'}"])
    run_sweep("train", sweep, job)
    index = json.loads(next((tmp_path / "runs" / "sweeps").glob("*.json")).read_text())
    assert len(index["jobs"]) == 6
    assert [group["seeds"] for group in index["seeds"]] == [["0", "1", "2"]] * 2
    assert {o for group in index["seeds"] for o in group["overrides"]} >= {"adapter=lora", "adapter=full"}
    assert capfd.readouterr().err.count("closure ct pet dice auto adapted: 0.600 ± 0.100") == 2
