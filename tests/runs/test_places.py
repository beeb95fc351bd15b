"""A model's files may move; what they say may not change without making another run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from umdseg.backbones.nninteractive.model import NninteractiveOptions
from umdseg.backbones.nnunet.options import NnunetOptions
from umdseg.backbones.options import ModelOptions
from umdseg.backbones.torch_module.options import TorchModuleOptions
from umdseg.backbones.voxtell.model import VoxtellOptions
from umdseg.config.check import check
from umdseg.runs.identity import run_hash
from umdseg.runs.zero_shot import ZeroShotStore


def hashed(model: ModelOptions, weights: str = "weights") -> str:
    settings = replace(check("evaluate", []), model=model)
    return run_hash(settings, "data", weights)


def stored(model: ModelOptions, weights: str = "weights") -> Path:
    settings = replace(check("evaluate", []), model=model)
    return ZeroShotStore.of(settings, "data", weights, ["s"], ["liver"]).folder


def result_folder(root: Path, spacing: float = 1.5) -> Path:
    inner = root / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (inner / "fold_0").mkdir(parents=True)
    (inner / "plans.json").write_text(json.dumps({"spacing": spacing}))
    (inner / "dataset.json").write_text("{}")
    (inner / "fold_0" / "debug.json").write_text(str(root))
    return root


@pytest.mark.parametrize("identity", [hashed, stored])
@pytest.mark.parametrize("options", [NnunetOptions, NninteractiveOptions, VoxtellOptions])
def test_a_models_folder_may_move(identity, options, tmp_path: Path) -> None:
    first = result_folder(tmp_path / "here")
    base = identity(options(folder=str(first)))
    shutil.copytree(first, tmp_path / "there")
    assert identity(options(folder=str(tmp_path / "there"))) == base
    # given itself or the folder above it
    assert identity(options(folder=str(next(first.iterdir())))) == base
    # the same tensors under other plans, and other tensors in the same folder, are another model
    assert identity(options(folder=str(result_folder(tmp_path / "other", spacing=3.0)))) != base
    assert identity(options(folder=str(first)), "other weights") != base


@pytest.mark.parametrize("identity", [hashed, stored])
def test_a_users_module_and_card_are_told_apart_by_content(identity, tmp_path: Path) -> None:
    def model(folder: str, code: str = "class Net: ...", card: str = "spacing: 1", name: str = "Net") -> str:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        (place / "net.py").write_text(code)
        (place / "card.yaml").write_text(card)
        return identity(TorchModuleOptions(module=f"{place}/net.py:{name}", card=f"{place}/card.yaml"))

    base = model("a")
    assert model("b") == base
    assert model("a", code="class Net: pass") != base
    assert model("a", card="spacing: 2") != base
    assert model("a", name="Other") != base
    package = identity(TorchModuleOptions(module="package.net:Net", card=str(tmp_path / "a" / "card.yaml")))
    assert package != model("a")


def test_embeddings_and_weights_files_are_places_too() -> None:
    base = hashed(VoxtellOptions(embeddings="a.npz", weights="a.pth"))
    assert hashed(VoxtellOptions(embeddings="b.npz", weights="b.pth")) == base
    assert hashed(VoxtellOptions(embeddings="a.npz", weights="a.pth"), "other") != base
