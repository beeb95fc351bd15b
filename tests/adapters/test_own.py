"""What all adapters that do not go through peft share: routes, folders, copies."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from umdseg import load_backbone, registry
from umdseg.adapters import AdapterCard, build, load_adapter, merge
from umdseg.adapters.own import OwnAdapter
from umdseg.backbones import Backbone
from umdseg.errors import UserError

ROUTES = ["pet", "mr"]
METHODS = ["lora_conv", "bottleneck", "bitfit", "norm", "head"]
SMALL = {"width": 4, "levels": 3, "spacing": [6.0, 6.0, 6.0], "window": [16, 16, 16]}
methods = pytest.mark.parametrize("method", METHODS)


def base() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("unet", "random", **SMALL).eval()


def routed(method: str, new: bool = True) -> Backbone:
    backbone = base()
    rows = backbone.add_structures(["tumour"]) if new else {}
    adapter = build(registry.resolve("adapter", method).Options(name=method, per="modality"))
    assert isinstance(adapter, OwnAdapter)
    adapter.inject(backbone, rows, ROUTES)
    return backbone


def move(backbone: Backbone) -> None:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def answer(backbone: Backbone, modality: str | None) -> torch.Tensor:
    """Logits of the head's only class and of those that were learned."""
    image = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    with backbone.routed(modality):
        return backbone.dense(backbone.encode(image))


@methods
def test_each_route_is_saved_loaded_and_merged_by_itself(method: str, tmp_path: Path) -> None:
    backbone = routed(method)
    move(backbone)
    plain = answer(base(), None)
    found = {name: answer(backbone, name) for name in ROUTES}
    assert torch.equal(answer(backbone, "ct"), plain)
    for name in ROUTES:
        assert found[name].shape[1] == 2
        assert not torch.equal(found[name][:, :1], plain)
    assert not torch.equal(found["pet"], found["mr"])
    card = AdapterCard.describe(backbone, ["tumour"], ROUTES)
    backbone.adapter.save(tmp_path / "a", backbone, card)
    stored = [load_file(tmp_path / "a" / name / "adapter.safetensors") for name in ROUTES]
    assert sum(t.numel() for state in stored for t in state.values()) == card.trainable

    fresh = base()
    load_adapter(tmp_path / "a", fresh)
    assert all(torch.equal(answer(fresh, name), found[name]) for name in ROUTES)
    if method == "bottleneck":
        return
    merge(fresh, "mr")
    torch.testing.assert_close(answer(fresh, None), found["mr"], rtol=0, atol=1e-4)
    assert fresh.net.state_dict().keys() == base().net.state_dict().keys()


@methods
def test_one_step_reaches_every_route_and_no_route_reaches_another(method: str) -> None:
    backbone = routed(method, new=False)
    image = torch.rand(1, 1, 16, 16, 16)
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    for number, route in enumerate(ROUTES):
        with backbone.routed(route):
            backbone.dense(backbone.encode(image)).square().mean().backward()
        reached = {name for name, p in trained.items() if p.grad is not None}
        assert any(f".sets.{number}." in name for name in reached)
        assert not any(f".sets.{later}." in name for name in reached for later in range(number + 1, 2))


@methods
def test_a_copy_is_on_its_own(method: str) -> None:
    backbone = routed(method, new=False)
    move(backbone)
    before = answer(backbone, "pet")
    other = copy.deepcopy(backbone)
    assert torch.equal(answer(other, "pet"), before)
    move(other)
    assert not torch.equal(answer(other, "pet"), before)
    assert torch.equal(answer(backbone, "pet"), before)
    other.adapter.unload(other)
    assert torch.equal(answer(other, None), answer(base(), None))
    assert torch.equal(answer(backbone, "pet"), before)


@methods
def test_files_of_another_shape_are_refused_before_anything_is_loaded(method: str, tmp_path: Path) -> None:
    backbone = routed(method, new=False)
    move(backbone)
    backbone.adapter.save(tmp_path / "a", backbone, AdapterCard.describe(backbone))
    fresh = base()
    adapter = build(registry.resolve("adapter", method).Options(name=method, targets="input_block.*"))
    adapter.inject(fresh)
    with pytest.raises(UserError, match=r"adapter\.safetensors"):
        adapter.read(tmp_path / "a", fresh)
    with pytest.raises(UserError, match="another network"):
        adapter.read(tmp_path / "a" / "pet", fresh)
    assert torch.equal(answer(fresh, None), answer(base(), None))
