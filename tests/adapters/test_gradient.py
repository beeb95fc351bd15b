"""Adapters that no gradient reaches are refused; parts that nobody prompts are named."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from umdseg import load_backbone
from umdseg.adapters import build
from umdseg.adapters.gradient import GradientWatch, check_gradients, trained_layers
from umdseg.adapters.lora import LoraOptions
from umdseg.adapters.reach import reachable
from umdseg.backbones import Backbone
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

CLICK = Prompt("liver", "point", ((20.0, 20.0, 20.0),), (1,))
NAMED = Prompt("liver")
POINT_BRANCH = r"image_encoder\.up_layers\.\d+\.blocks\.\d+\.conv[12]"
IDLE = r"point_head\.mask_downsample"


def model(targets: str | None = None) -> Backbone:
    backbone = load_backbone("vista3d_tiny", "random")
    if targets is not None:
        build(LoraOptions(rank=2, targets=targets)).inject(backbone)
    return backbone


def step(backbone: Backbone, prompt: Prompt) -> None:
    backbone.zero_grad(set_to_none=True)
    image = torch.rand(1, 1, 16, 16, 16)
    loss = backbone.decode(backbone.encode(image), [prompt]).square().mean()
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]


def test_an_adapter_that_no_step_runs_is_refused_at_the_first_one() -> None:
    backbone = model(POINT_BRANCH)
    watch = GradientWatch(backbone)
    step(backbone, NAMED)
    with pytest.raises(UserError, match=r"image_encoder\.up_layers.*(?s:.*)prompted by auto"):
        watch.step("auto")


def test_branches_may_take_turns() -> None:
    backbone = model(rf"{POINT_BRANCH}|class_head\.mlp\.\d")
    watch = GradientWatch(backbone, patience=2)
    step(backbone, NAMED)
    watch.step("auto")
    step(backbone, CLICK)
    watch.step("point")
    assert watch.done
    with pytest.raises(UserError, match=r"class_head\.mlp"):
        check_gradients(backbone)


def test_a_branch_nobody_prompts_is_named_once_and_allowed(caplog: pytest.LogCaptureFixture) -> None:
    backbone = model(rf"{POINT_BRANCH}|class_head\.mlp\.\d")
    watch = GradientWatch(backbone, patience=3)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            step(backbone, NAMED)
            watch.step("auto")
    (told,) = caplog.messages
    assert "after 3 steps" in told
    assert "image_encoder.up_layers.0.blocks.0.conv1" in told
    assert "no step was prompted by point" in told


def test_a_layer_that_answers_do_not_depend_on_is_refused_in_time() -> None:
    backbone = model(rf"{IDLE}|class_head\.mlp\.\d|{POINT_BRANCH}")
    watch = GradientWatch(backbone, patience=2)
    step(backbone, NAMED)
    watch.step("auto")
    step(backbone, CLICK)
    with pytest.raises(UserError, match=r"no gradient has reached point_head\.mask_downsample\b"):
        watch.step("point")


def test_the_layer_is_what_holds_frozen_tensors_beside_the_trained() -> None:
    backbone = model(r"class_head\.mlp\.\d")
    found = trained_layers(backbone)
    assert list(found) == ["net.base_model.model.class_head.mlp.0", "net.base_model.model.class_head.mlp.3"]
    assert all(len(names) == 2 for names in found.values())
    whole: Any = model()
    assert list(trained_layers(whole.requires_grad_(True))) == [""]
    assert isinstance(whole.net, nn.Module)


def test_gradients_of_zeros_only_are_none_in_the_long_run() -> None:
    backbone = model(rf"{POINT_BRANCH}|class_head\.mlp\.\d")
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad and "class_head" in name:
            parameter.register_hook(torch.zeros_like)
    watch = GradientWatch(backbone, patience=2)
    step(backbone, NAMED)
    watch.step("auto")
    step(backbone, CLICK)
    with pytest.raises(UserError, match=r"no gradient has reached class_head\.mlp\.0"):
        watch.step("point")


def test_a_layer_that_no_kind_of_prompt_could_reach_is_refused_whatever_was_prompted() -> None:
    backbone = model(rf"{IDLE}|class_head\.mlp\.\d|{POINT_BRANCH}")
    watch = GradientWatch(backbone, patience=2)
    step(backbone, NAMED)
    watch.step("auto")
    step(backbone, NAMED)
    with pytest.raises(UserError, match=r"reached point_head\.mask_downsample, nor could a prompt by point"):
        watch.step("auto")


def test_short_fits_are_judged_at_their_end(caplog: pytest.LogCaptureFixture) -> None:
    GradientWatch(model(IDLE)).finish()  # without a step there is nothing to judge
    backbone = model(rf"{POINT_BRANCH}|class_head\.mlp\.\d")
    watch = GradientWatch(backbone)
    step(backbone, NAMED)
    watch.step("auto")
    with caplog.at_level(logging.WARNING):
        watch.finish()
        watch.finish()
    (told,) = caplog.messages
    assert "after 1 step no" in told
    assert "no step was prompted by point" in told

    backbone = model(rf"{IDLE}|class_head\.mlp\.\d|{POINT_BRANCH}")
    watch = GradientWatch(backbone)
    for kind, prompt in (("auto", NAMED), ("point", CLICK)):
        step(backbone, prompt)
        watch.step(kind)
    with pytest.raises(
        UserError, match=r"after 2 steps no gradient has reached point_head\.mask_downsample\n"
    ):
        watch.finish()


def test_zeros_of_a_few_steps_are_named_but_not_refused(caplog: pytest.LogCaptureFixture) -> None:
    backbone = model(rf"{POINT_BRANCH}|class_head\.mlp\.\d")
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad and "class_head" in name:
            parameter.register_hook(torch.zeros_like)
    watch = GradientWatch(backbone)
    for kind, prompt in (("auto", NAMED), ("point", CLICK)):
        step(backbone, prompt)
        watch.step(kind)
    with caplog.at_level(logging.WARNING):
        watch.finish()
    (told,) = caplog.messages
    assert "class_head.mlp.0" in told


@pytest.mark.parametrize("routes", [(), ("pet", "mr")], ids=["one", "several"])
def test_what_is_reachable_is_what_a_backward_pass_reaches(routes: tuple[str, ...]) -> None:
    backbone = load_backbone("vista3d_tiny", "random")
    options = LoraOptions(rank=2, targets=rf"{IDLE}|class_head\.mlp\.\d|{POINT_BRANCH}")
    options.per = "modality" if routes else None
    build(options).inject(backbone, routes=routes)
    layers = trained_layers(backbone.train())
    found = {}
    for kind, prompt in (("auto", NAMED), ("point", CLICK)):
        with backbone.routed("mr"):
            step(backbone, prompt)
        gradients = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
        wanted = {layer for layer, names in layers.items() if gradients.keys() & set(names)}
        random, modes = torch.get_rng_state(), [part.training for part in backbone.modules()]
        found[kind] = reachable(backbone, layers, kind)
        assert found[kind] == wanted
        # the training around it notices nothing
        assert torch.equal(torch.get_rng_state(), random)
        assert [part.training for part in backbone.modules()] == modes
        assert all(p.grad is gradients.get(name) for name, p in backbone.named_parameters())
    assert found["auto"]
    assert found["point"]
    assert not found["auto"] & found["point"]
    idle = {layer for layer in layers if "mask_downsample" in layer}
    assert layers.keys() - found["auto"] - found["point"] == idle != set()
    # what cannot be tried decides nothing
    assert reachable(backbone, layers, "text") == layers.keys()
