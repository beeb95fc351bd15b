"""The doors and the check with a model that takes CT and PET of one person together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import pandas as pd
import pytest
import yaml

from umdseg import load_backbone
from umdseg.backbones.listing import takes
from umdseg.backbones.torch_module.options import TorchModuleOptions
from umdseg.config.check import ConfigError, check
from umdseg.errors import UserError
from umdseg.preflight import estimate
from umdseg.preflight.look import look
from umdseg.runs import door
from umdseg.runs.people import accept


@pytest.fixture
def both(tmp_path: Path) -> list[str]:
    """Overrides of a small convolution on CT and PET."""
    code = "from torch import nn\n\n\ndef net():\n    return nn.Conv3d(2, 1, 3, padding=1)\n"
    (tmp_path / "net.py").write_text(code)
    card: dict[str, Any] = {"channels": ["ct", "pet"], "spacing": [8.0] * 3, "window": [16] * 3}
    card["intensity"] = {m: {"kind": "window", "low": 0, "high": 100} for m in ("ct", "pet")}
    (tmp_path / "card.yaml").write_text(
        yaml.safe_dump({**card, "output": "sigmoid", "structures": {"liver": 0}})
    )
    return ["model=torch_module", f"model.module={tmp_path}/net.py:net", f"model.card={tmp_path}/card.yaml"]


def problems(door_name: str, *overrides: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        check(door_name, overrides)
    return {p.path: f"{p.given} {p.expected}" for p in caught.value.problems}


@pytest.mark.parametrize("model", [["model=lesiontracer"], None])
def test_training_and_missing_scans_are_refused_before_anything_is_built(
    both: list[str], model: list[str] | None
) -> None:
    chosen = model or [*both, "model.weights=random"]
    found = problems("train", *chosen)
    assert "takes ct and pet of one person together" in found["model"]
    assert "patches of single scans" in found["model"]
    assert "without pet" in problems("evaluate", *chosen, "data.modalities=[ct,mr]")["data.modalities"]
    check("evaluate", chosen)
    # nothing is fitted: a zero-shot evaluation
    check("train", [*chosen, "adapter=none"])


def test_a_folder_or_card_tells_before_the_model_is_built(both: list[str], tmp_path: Path) -> None:
    card = str(tmp_path / "card.yaml")
    assert takes(TorchModuleOptions(card=card)) == ("ct", "pet")
    built = load_backbone("torch_module", "random", module=f"{tmp_path}/net.py:net", card=card)
    assert built.takes == ("ct", "pet")
    assert takes(TorchModuleOptions(card=str(tmp_path / "gone.yaml"))) == ()
    assert takes(TorchModuleOptions(name="vista3d_tiny")) == ()


def test_models_that_tell_only_once_built_are_refused_then() -> None:
    backbone: Any = SimpleNamespace(takes=("ct", "pet"), card=SimpleNamespace(name="theirs"))
    settings: Any = SimpleNamespace(
        data=SimpleNamespace(modalities=["ct", "pet"]),
        fit=SimpleNamespace(steps=1),
        adapter=SimpleNamespace(name="lora"),
    )
    accept("evaluate", settings, backbone)
    with pytest.raises(UserError, match="theirs takes ct and pet of one person together; adapters"):
        accept("train", settings, backbone)
    settings.data.modalities = ["pet"]
    with pytest.raises(UserError, match="without ct it cannot be asked"):
        accept("evaluate", settings, backbone)


def test_a_run_has_one_row_per_person_and_structure(
    both: list[str], small: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    more = ["data.split=all", "limit_subjects=2", "evaluation.baselines=[intensity]", "save_predictions=true"]
    assert door.main("evaluate", [*small, *both, *more]) == 0
    run = Path(capfd.readouterr().out.strip())
    cases = pd.read_parquet(run / "cases.parquet")
    own = cases[(cases["model"] == "torch_module") & (cases["score_grid"] == "label")]
    assert set(own["modality"]) == {"ct+pet"}
    assert sorted(zip(own["subject"], own["structure"], own["status"], strict=True)) == [
        (s, o, status) for s in ("s0", "s1") for o, status in (("liver", "ok"), ("tumour", "class_unknown"))
    ]
    # baselines look at single scans: those the model takes
    assert set(cases.loc[cases["model"] == "intensity", "modality"]) == {"ct", "pet"}
    saved = nib.load(run / "predictions" / "s1" / "ct+pet__zero_shot__auto.nii.gz")
    assert saved.shape == (24, 24, 24)


def test_the_check_says_who_has_both_scans_and_counts_two_channels(
    both: list[str], small: list[str], manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "throughput", lambda *_: 1e12)
    table = manifest.read_text().splitlines()
    rows = [line for line in table if not line.startswith("s3,pet")]
    lacking = manifest.with_name("lacking.csv")
    lacking.write_text("\n".join(rows) + "\n")
    lacking.with_suffix(".yaml").write_text("structures: {liver: 1, tumour: 2}\n")
    base = [one for one in small if not one.startswith(("limit_subjects", "data.manifest"))]
    works: list[Any] = []

    def noted(settings: Any, backbone: Any, work: Any) -> Any:
        works.append(work)
        return estimate.estimate(settings, backbone, work)

    monkeypatch.setattr("umdseg.preflight.look.estimate", noted)
    found = {c.name: c for c in look("evaluate", [*base, *both, f"data.manifest={lacking}"], probe=True)}
    assert found["inputs"].numbers == "ct+pet of one person together; 1 of 2 scored subjects have them"
    (finding,) = found["inputs"].findings
    assert (finding.level, "1 of 2 scored subjects lack" in finding.what) == ("warn", True)
    assert "the card" not in " ".join(f.what for f in found["prompts"].findings), "mr is not asked for"
    assert found["probe"].level == "pass"
    assert "not probed" in found["probe"].numbers
    assert "not estimated" not in found["time"].numbers
    (work,) = works
    assert (len(work.score), work.score[0].shape, work.channels) == (1, (24, 24, 24), 2)
