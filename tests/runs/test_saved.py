"""What a saved fusion says about the settings it is scored with; nothing is loaded."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from umdseg.config.check import check
from umdseg.config.schema import Settings
from umdseg.errors import UserError
from umdseg.fusion.saved import FILE, FusionCard
from umdseg.preflight.configuration import configuration
from umdseg.runs.saved import with_fusion

OPTIONS = {"lr": None, "dropout": 0.5, "subsets": True, "width": 8}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that trained a fusion of a registered model, and no adapter."""
    return saved(tmp_path / "run", "monai_wholebody")


def saved(folder: Path, base: str) -> Path:
    card = FusionCard("gated", base, None, ["ct", "pet"], "ct", options=dict(OPTIONS))
    (folder / "fusion").mkdir(parents=True)
    (folder / "fusion" / FILE).write_text(json.dumps(asdict(card)))
    return folder


def given(*overrides: str) -> Settings:
    return with_fusion(check("evaluate", list(overrides)))


@pytest.mark.parametrize("named", ["adapter.path={}", "fusion.path={}", "fusion.path={}/fusion"])
def test_model_and_options_are_the_cards_and_no_adapter_is_looked_for(run: Path, named: str) -> None:
    settings = given(named.format(run))
    assert settings.model.name == "monai_wholebody"
    assert settings.adapter.path is None
    assert settings.adapter.name == "none"
    assert asdict(settings.fusion) == {**OPTIONS, "name": "gated", "path": str(run / "fusion")}
    # what umdseg check shows is what the run takes
    shown, told = configuration("evaluate", [named.format(run)], [])
    assert told.findings == ()
    assert shown is not None
    assert (shown.model.name, shown.adapter.path) == ("monai_wholebody", None)


def test_what_is_scored_is_the_callers_choice(run: Path) -> None:
    assert given(f"adapter.path={run}", "fusion.subsets=false").fusion.subsets is False
    same = ["fusion=gated", "fusion.width=8", "fusion.dropout=0.5", "model=monai_wholebody"]
    assert given(f"fusion.path={run}", *same).fusion.width == 8


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["model=unet"], "model.name"),
        (["fusion.dropout=0.1"], "fusion.dropout"),
        (["fusion=late", "fusion.dropout=0.5"], "fusion.name"),
        (["fusion=gated", "fusion.width=4"], "fusion.width"),
    ],
)
def test_what_contradicts_the_card_is_refused(run: Path, overrides: list[str], where: str) -> None:
    with pytest.raises(UserError) as caught:
        given(f"fusion.path={run}", *overrides)
    assert caught.value.where == where


def test_an_adapter_beside_is_taken_and_one_that_is_not_there_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match="trained without an adapter") as caught:
        given(f"adapter.path={run}", "adapter=lora")
    assert caught.value.where == "adapter.name"
    # a path to something else stays, so that what is missing is said
    assert given(f"fusion.path={run}", f"adapter.path={run.parent}").adapter.path == str(run.parent)
    (run / "adapter").mkdir()
    assert given(f"fusion.path={run}").adapter.path == str(run / "adapter")


def test_a_card_of_the_users_own_keeps_the_model_of_the_command_line(tmp_path: Path) -> None:
    own: list[Any] = ["model=torch_module", "model.module=net.py:Net", "model.card=net.yaml"]
    assert given(f"fusion.path={saved(tmp_path / 'run', 'net')}", *own).model.name == "torch_module"
