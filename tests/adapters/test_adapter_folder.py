"""The saved form of adapters, and LoRA's options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from umdseg import registry
from umdseg.adapters import AdapterCard, build, load_adapter
from umdseg.adapters.card import FILE
from umdseg.adapters.lora import LoraOptions
from umdseg.backbones import Backbone, load_backbone
from umdseg.errors import UserError


def model() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("vista3d_tiny", "random")


def saved(folder: Path, options: LoraOptions | None = None) -> Path:
    backbone = model()
    adapter = build(options or LoraOptions())
    adapter.inject(backbone, backbone.add_structures(["tumour"]))
    adapter.save(folder, backbone, AdapterCard.describe(backbone, ["tumour", "liver"], ["pet"]))
    return folder


@pytest.mark.parametrize(("rank", "limit"), [(4, 0.05), (8, 0.10)])
def test_lora_on_the_tiny_model_stays_small(rank: int, limit: float) -> None:
    backbone = model()
    adapter = build(LoraOptions(rank=rank))
    adapter.inject(backbone)
    trainable, total = adapter.parameters(backbone)
    assert trainable / total <= limit


def test_the_card_says_what_loading_needs(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", LoraOptions(rank=4, alpha=4))
    values = json.loads((folder / FILE).read_text())
    assert values["base_model"] == "vista3d_tiny"
    assert values["method"] == "lora"
    assert values["options"] == {"rank": 4, "alpha": 4, "dropout": 0.0, "targets": None, "per": None}
    assert values["structures"] == {"tumour": 256, "liver": 1}
    assert values["new_structures"] == {"tumour": 256}
    assert values["preprocessing"]["spacing"] == list(model().card.spacing)
    assert {"umdseg", "torch", "monai", "peft"} <= set(values["versions"])


@pytest.mark.parametrize("method", ["full", "lora", "bitfit"])
def test_targets_that_are_no_regular_expression_are_refused(method: str) -> None:
    options = registry.resolve("adapter", method).Options(name=method, targets="encoder.[")
    with pytest.raises(UserError, match=r"(?s)'encoder\.\[' is no regular expression.*adapter\.targets"):
        build(options).inject(model())


def test_peft_itself_reads_the_folder(tmp_path: Path) -> None:
    from peft import PeftConfig, PeftModel

    folder = saved(tmp_path / "a")
    assert PeftConfig.from_pretrained(str(folder)).r == 8
    backbone = model()
    PeftModel.from_pretrained(backbone.net, str(folder))


def test_a_folder_that_is_no_adapter_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "run" / "adapter")
    with pytest.raises(UserError, match=r"did you mean: .*adapter"):
        load_adapter(tmp_path / "run", model())
    with pytest.raises(UserError, match="no saved adapter"):
        load_adapter(tmp_path / "nowhere", model())
    (tmp_path / "run" / "adapter" / FILE).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        load_adapter(tmp_path / "run" / "adapter", model())


def test_an_adapter_of_another_model_or_with_unknown_options_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a")
    values = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**values, "base_model": "vista3d"}))
    with pytest.raises(UserError, match="'vista3d', not 'vista3d_tiny'"):
        load_adapter(folder, model())
    (folder / FILE).write_text(json.dumps({**values, "options": {"rnk": 4}}))
    with pytest.raises(UserError, match="rnk"):
        load_adapter(folder, model())


@pytest.mark.parametrize(("key", "trained"), [("spacing", [1.5, 1.5, 1.5]), ("window", [32, 32, 32])])
def test_another_spacing_or_window_than_in_training_is_refused_naming_both(
    key: str, trained: list[float], tmp_path: Path
) -> None:
    folder = saved(tmp_path / "a")
    values = json.loads((folder / FILE).read_text())
    values["preprocessing"][key] = trained
    (folder / FILE).write_text(json.dumps(values))
    backbone = model()
    with pytest.raises(UserError, match=key) as caught:
        load_adapter(folder, backbone)
    assert f"{key} {trained}, not {list(getattr(backbone.card, key))}" in str(caught.value)
    assert backbone.adapter is None
    assert not backbone.knows("tumour")


def test_taken_class_rows_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a")
    backbone = model()
    backbone.add_structures(["node"])
    with pytest.raises(UserError, match="taken"):
        load_adapter(folder, backbone)


def test_a_failed_save_leaves_the_old_adapter_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "a")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    backbone = model()
    adapter = build(LoraOptions())
    adapter.inject(backbone)

    def half(path: Path, _: Backbone) -> None:
        (path / "adapter_model.safetensors").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(adapter, "_write", half)
    with pytest.raises(OSError, match="disk full"):
        adapter.save(folder, backbone, AdapterCard.describe(backbone))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_mistaken_options_of_lora_are_refused() -> None:
    with pytest.raises(UserError, match="regular expression"):
        build(LoraOptions(targets="no_such_module")).inject(model())
    with pytest.raises(UserError, match="rank"):
        build(LoraOptions(rank=0)).inject(model())


def test_two_adapters_at_once_are_a_programming_error() -> None:
    backbone = model()
    build(LoraOptions()).inject(backbone)
    with pytest.raises(ValueError, match="already carries"):
        build(LoraOptions()).inject(backbone)
