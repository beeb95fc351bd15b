"""Two processes on one machine, as `trainer=ddp` starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

from umdseg.evaluation.scans import SCANS, read_scans

ROOT = Path(__file__).parents[2]


def test_two_processes_share_one_run(small: list[str], tmp_path: Path) -> None:
    """Both train, each scores one of the two subjects, one folder holds everything."""
    overrides = [*small, "limit_subjects=2", "fit.steps=2", "adapter.per=modality", "trainer.devices=2"]
    overrides += ["trainer.strategy=ddp_find_unused_parameters_true"]
    command = [sys.executable, "train.py", *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = map(Path, done.stdout.split())
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]
    assert json.loads((folder / "provenance.json").read_text())["status"] == "complete"

    cases = pd.read_parquet(folder / "cases.parquet")
    keys = ["subject", "modality", "structure", "stage", "score_grid"]
    assert not cases.duplicated(keys).any()
    assert cases["subject"].nunique() == 2
    # 2 subjects x 3 modalities or those of the manifest's pair x 2 structures x before and after
    assert len(read_scans(folder / SCANS)) == 2 * cases["modality"].nunique()
    assert len(cases) == 2 * 2 * cases["modality"].nunique() * 2 * 2
    assert set(cases.loc[cases["stage"] == "adapted", "status"]) == {"ok"}
    assert {path.parent.name for path in (folder / "adapter").rglob("*.safetensors")} == {"ct", "pet"}
