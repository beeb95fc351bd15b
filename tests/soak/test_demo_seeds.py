"""The demo's promise holds for other seeds: other people, other noise, other prompts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_the_gap_opens_and_closes(seed: int, tmp_path: Path) -> None:
    command = [sys.executable, "train.py", "experiment=demo", f"seed={seed}", f"runs_dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    run = Path(done.stdout.strip().splitlines()[-1])
    result = json.loads((run / "gap.json").read_text())
    cases = pd.read_parquet(run / "cases.parquet").query("score_grid == 'label'")

    own = cases[cases["model"] == "vista3d_tiny"]
    zero_shot = own[(own["stage"] == "zero_shot") & (own["prompt"] == "auto")]
    by_subject = zero_shot.groupby(["modality", "subject"])["dice"].mean().groupby("modality").mean()
    assert by_subject["ct"] >= 0.85

    for target in ("pet", "mr"):
        before = _entry(result["gaps"], target, "zero_shot")
        assert before["gap"] > 0.1
        assert before["ci"][0] > 0
        assert _entry(result["closure"], target, "adapted")["value"] >= 0.5
        assert _entry(result["forgetting"], target, "adapted")["value"] <= 0.02
    assert result["adapter"]["trainable"] <= 0.10 * result["adapter"]["total"]

    classifier = cases[cases["model"] == "intensity"].groupby("modality")["dice"].mean()
    assert set(classifier.index) == {"ct", "pet", "mr"}
    assert (classifier < 0.5).all()


def _entry(entries: list[dict[str, Any]], target: str, stage: str) -> dict[str, Any]:
    wanted = {"reference": "ct", "target": target, "stage": stage, "prompt": "auto"}
    found = [entry for entry in entries if wanted.items() <= entry.items()]
    assert len(found) == 1
    return found[0]
