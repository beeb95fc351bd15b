"""How the model of an adapter or a fusion worked is kept: taken up again, or refused where it differs."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from umdseg import registry
from umdseg.adapters import AdapterCard, build, combine, load_adapter
from umdseg.adapters.card import FILE
from umdseg.adapters.lora import LoraOptions
from umdseg.backbones import Backbone, load_backbone
from umdseg.backbones.card import Intensity
from umdseg.backbones.record import record_of
from umdseg.backbones.torch_module.factory import build as made_of
from umdseg.config.check import check
from umdseg.config.schema import options_of
from umdseg.errors import UserError
from umdseg.fusion import build as fuse
from umdseg.fusion import load_fusion, save_fusion
from umdseg.fusion.late import LateOptions
from umdseg.fusion.saved import FILE as FUSION_FILE
from umdseg.fusion.saved import FusionCard
from umdseg.runs.evaluate import with_card

MODULE = """
from torch import nn


class Small(nn.Sequential):
    def __init__(self, slope=0.1):
        super().__init__(nn.Conv3d(1, 8, 3, padding=1), nn.LeakyReLU(slope), nn.Conv3d(8, 2, 3, padding=1))


class Smooth(nn.Sequential):
    def __init__(self, slope=0.1):
        super().__init__(nn.Conv3d(1, 8, 3, padding=1), nn.GELU(), nn.Conv3d(8, 2, 3, padding=1))
"""
CARD: dict[str, Any] = {
    "orientation": "RAS",
    "spacing": [2.0, 2.0, 2.0],
    "window": [8, 8, 8],
    "intensity": {
        "ct": {"kind": "window", "low": -160, "high": 240},
        "pet": {"kind": "percentile", "low": 1, "high": 99},
    },
    "output": "softmax",
    "structures": {"liver": 1},
}


class Own:
    """A network of the user's own in a folder, with whatever of its card is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "nets.py").write_text(MODULE)
        torch.manual_seed(0)
        torch.save(made_of(f"{folder / 'nets.py'}:Small", {}).state_dict(), folder / "net.pt")

    def model(self, made: str = "Small", arguments: dict[str, Any] | None = None, **card: Any) -> Backbone:
        path = self.folder / "card.yaml"
        path.write_text(yaml.safe_dump({**CARD, **card}))
        module, weights = f"{self.folder / 'nets.py'}:{made}", str(self.folder / "net.pt")
        given = {"arguments": {"slope": 0.1} if arguments is None else arguments}
        return load_backbone("torch_module", weights, module=module, card=str(path), **given)


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return Own(tmp_path)


def adapted(backbone: Backbone, folder: Path) -> Path:
    adapter = build(LoraOptions(rank=2))
    adapter.inject(backbone)
    adapter.save(folder, backbone, AdapterCard.describe(backbone, ["liver"], ["pet"]))
    return folder


def fused(backbone: Backbone, folder: Path) -> Path:
    save_fusion(fuse(LateOptions(), backbone, ["ct", "pet"], "ct", ["liver"]), folder)
    return folder


WIDER = {**CARD["intensity"], "pet": {"kind": "percentile", "low": 1, "high": 95}}
# what is another now, the words of the error
CHANGES: list[tuple[dict[str, Any], list[str]]] = [
    ({"intensity": WIDER}, ["intensity.pet.high 99.0, not 95.0"]),
    ({"intensity": {"ct": CARD["intensity"]["ct"]}}, ["intensity.pet {'kind': 'percentile'", "not None"]),
    ({"orientation": "LPS"}, ["orientation RAS, not LPS"]),
    ({"crop": {"above": 0.0, "stage": "before", "margin": 2}}, ["crop None, not {'above': 0.0"]),
    ({"window": [16, 8, 8]}, ["window [8, 8, 8], not [16, 8, 8]"]),
    ({"arguments": {"slope": 0.2}}, ["model.arguments.slope 0.1, not 0.2"]),
    ({"made": "Smooth"}, ["model.module Small, not Smooth"]),
    ({"orientation": "LPS", "spacing": None}, ["orientation RAS, not LPS; spacing [2.0, 2.0, 2.0], not []"]),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_model_that_works_otherwise_is_refused_naming_field_then_and_now(
    change: dict[str, Any], words: list[str], own: Own
) -> None:
    adapter, fusion = (
        adapted(own.model(), own.folder / "adapter"),
        fused(own.model(), own.folder / "fusion"),
    )
    load_adapter(adapter, own.model())
    load_fusion(fusion, own.model())
    for load, folder, what in ((load_adapter, adapter, "adapter"), (load_fusion, fusion, "fusion")):
        backbone = own.model(**change)
        with pytest.raises(UserError, match=f"the {what} was trained with another ") as caught:
            load(folder, backbone)
        assert caught.value.where == folder
        assert all(word in (caught.value.expected or "") for word in words), caught.value.expected
        assert backbone.adapter is None


def test_a_modality_that_the_card_gained_is_no_difference(own: Own) -> None:
    folder = adapted(own.model(), own.folder / "adapter")
    load_adapter(folder, own.model(intensity={**CARD["intensity"], "mr": {"kind": "zscore"}}))


def test_folders_without_the_record_load_and_say_so_once(
    own: Own, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter, fusion = (
        adapted(own.model(), own.folder / "adapter"),
        fused(own.model(), own.folder / "fusion"),
    )
    values = json.loads((adapter / FILE).read_text())
    # as version 0.1 wrote them
    old = {key: values["preprocessing"][key] for key in ("spacing", "window")}
    (adapter / FILE).write_text(json.dumps({**values, "preprocessing": old}))
    values = json.loads((fusion / FUSION_FILE).read_text())
    values["window"] = values.pop("preprocessing")["window"]
    (fusion / FUSION_FILE).write_text(json.dumps(values))
    for load, folder, compared in (
        (load_adapter, adapter, "spacing and window"),
        (load_fusion, fusion, "window"),
    ):
        capsys.readouterr()
        load(folder, own.model(orientation="LPS"))
        said = capsys.readouterr().err
        assert said.count("note:") == 1
        assert str(folder) in said
        assert f"now: {compared}\n" in said
        load(folder, own.model())
        assert capsys.readouterr().err == ""
        with pytest.raises(UserError, match="another window"):
            load(folder, own.model(window=[16, 8, 8]))


def test_the_record_is_plain_and_readable(tmp_path: Path) -> None:
    backbone = load_backbone("vista3d_tiny", window=(24, 24, 32))
    folder = adapted(backbone, tmp_path / "a")
    record = json.loads((folder / FILE).read_text())["preprocessing"]
    assert record["orientation"] == "RAS"
    assert (record["spacing"], record["window"]) == ([6.0, 6.0, 6.0], [24, 24, 32])
    assert set(record["intensity"]) == {"ct", "pet", "mr"}
    assert record["intensity"]["ct"]["kind"] == "window"
    assert (record["model"], record["defaults"]) == ({}, {"name": "vista3d_tiny"})
    assert AdapterCard.read(folder).preprocessing == record_of(backbone)


def test_numbers_that_json_lacks_are_kept_as_words(own: Own) -> None:
    endless = {**CARD["intensity"], "pet": {"kind": "standardise", "low": 0.0, "high": float("inf")}}
    folder = adapted(own.model(intensity=endless), own.folder / "adapter")
    assert AdapterCard.read(folder).preprocessing["intensity"]["pet"]["high"] == "inf"
    load_adapter(folder, own.model(intensity=endless))
    with pytest.raises(UserError, match=r"intensity.pet.high inf, not 9.0"):
        load_adapter(folder, own.model(intensity={**endless, "pet": {**endless["pet"], "high": 9.0}}))


@pytest.mark.parametrize("name", registry.names("model"))
def test_every_option_is_told_once_or_lies_elsewhere(name: str) -> None:
    made = options_of("model", name)
    known = {spec.name for spec in fields(made)}
    assert {*made.ELSEWHERE, *made.FREE} <= known
    assert not set(made.ELSEWHERE) & set(made.FREE)
    options = made(name=name)
    binding, defaults = set(options.binding()), set(options.defaults())
    assert not binding & defaults
    # of a module of the user's own the class is recorded, not where it lies
    assert binding | defaults == (known - set(made.ELSEWHERE)) | (
        {"module"} if name == "torch_module" else set()
    )


def saved_card(**record: Any) -> AdapterCard:
    return AdapterCard("sam_vit_b", None, "lora", preprocessing=record)


def test_options_that_the_user_does_not_name_are_those_of_training(
    capsys: pytest.CaptureFixture[str],
) -> None:
    card = saved_card(
        model={"channels": "neighbours"}, defaults={"propagate": "point", "planes": ["axial", "sagittal"]}
    )
    found = with_card(check("evaluate", ["model.weights=random"]), card).model
    assert (found.name, found.weights) == ("sam_vit_b", "random")
    got = {key: getattr(found, key) for key in ("channels", "propagate", "planes")}
    assert got == {"channels": "neighbours", "propagate": "point", "planes": ["axial", "sagittal"]}
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "model.channels=neighbours" in said
    typed = ["model=sam_vit_b", "model.channels=repeat", "model.planes=[axial]", "model.cached_mb=7"]
    found = with_card(check("evaluate", typed), card).model
    assert found.channels == "repeat", "what the user names stays, for loading to refuse"
    assert (found.propagate, found.planes, found.cached_mb) == ("point", ["axial"], 7)
    # a record without options, and one with options the model no longer has
    for record in ({"spacing": [], "window": [1, 1, 1]}, {"model": {"gone": 3}}):
        assert with_card(check("evaluate", []), saved_card(**record)).model.channels == "repeat"
    with pytest.raises(UserError, match=r"model.cached|model.planes") as caught:
        with_card(check("evaluate", []), saved_card(defaults={"planes": {"axial": 1}}))
    assert "list of str" in str(caught.value)


def test_a_module_of_ones_own_is_found_again_under_its_registered_name(own: Own) -> None:
    card = AdapterCard.read(adapted(own.model(), own.folder / "adapter"))
    assert card.base_model == "card"
    typed = [
        "model=torch_module",
        f"model.module={own.folder}/nets.py:Small",
        f"model.card={own.folder}/card.yaml",
    ]
    found = with_card(check("evaluate", typed), card).model
    assert (found.name, found.arguments) == ("torch_module", {"slope": 0.1})
    assert found.module == f"{own.folder}/nets.py:Small"
    with pytest.raises(UserError, match="made with 'torch_module', not 'vista3d_tiny'"):
        with_card(check("evaluate", ["model=vista3d_tiny"]), card)


def test_adapters_of_other_preprocessing_are_not_combined(own: Own) -> None:
    one, two = adapted(own.model(), own.folder / "one"), adapted(own.model(), own.folder / "two")
    other = adapted(own.model(intensity=WIDER), own.folder / "other")
    with pytest.raises(UserError, match=r"intensity.pet.high: 99.0 and 95.0"):
        combine([one, other], [0.5, 0.5], own.folder / "sum")
    # with one that holds less of a record, in either order, nothing of it is lost
    values = json.loads((two / FILE).read_text())
    old = {key: values["preprocessing"][key] for key in ("spacing", "window")}
    (two / FILE).write_text(json.dumps({**values, "preprocessing": old}))
    for pair in ([one, two], [two, one]):
        card = combine(pair, [0.5, 0.5], own.folder / "sum")
        assert card.preprocessing == AdapterCard.read(one).preprocessing
    load_adapter(own.folder / "sum", own.model())


def test_a_fusions_card_holds_the_record_of_its_inner_model(own: Own) -> None:
    card = FusionCard.read(fused(own.model(), own.folder / "fusion"))
    assert card.preprocessing == record_of(own.model())
    assert card.preprocessing["intensity"]["ct"]["high"] == Intensity("window", -160.0, 240.0).high
