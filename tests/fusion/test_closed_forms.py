"""Fusions against what they are by definition, on MONAI's U-Net and on numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umdseg.backbones import load_backbone
from umdseg.errors import UserError
from umdseg.fusion import Fused, build
from umdseg.fusion.early import EarlyOptions
from umdseg.fusion.late import LateOptions
from umdseg.fusion.presence import drop, leads, subsets
from umdseg.vocabulary import Prompt


def image(count: int) -> torch.Tensor:
    return torch.rand(2, count, 16, 16, 16, generator=torch.Generator().manual_seed(0))


def fused(options: EarlyOptions | LateOptions, modalities: list[str], base: str = "unet") -> Fused:
    torch.manual_seed(0)
    sizes = {"width": 4, "levels": 3, "window": [16, 16, 16]} if base == "unet" else {}
    backbone = load_backbone(base, "random", **sizes)
    backbone.add_structures(["liver", "spleen"])
    made = build(options, backbone.eval(), modalities, "ct", ["liver"])
    assert isinstance(made, Fused)
    return made


@torch.no_grad()
def test_early_fusion_is_the_network_with_more_input_channels() -> None:
    model = fused(EarlyOptions(), ["ct", "pet", "mr"])
    added = model.parts.added  # type: ignore[attr-defined]
    for module in added.values():
        torch.nn.init.normal_(module.weight, std=0.2)
    stem = model.inner.card.stem
    inner = model.inner.net.get_submodule(stem)
    # an independent inflated convolution: one kernel over all channels
    whole = torch.nn.Conv3d(3, inner.out_channels, inner.kernel_size, inner.stride, inner.padding, bias=False)
    kernels = [inner.weight, added["pet"].weight, added["mr"].weight]
    whole.weight.copy_(torch.cat(kernels, dim=1))
    seen: list[torch.Tensor] = []
    inner.register_forward_hook(lambda module, inputs, output: seen.append(output))
    values = image(3)
    model.encode(values)
    bias = 0 if inner.bias is None else inner.bias.reshape(1, -1, 1, 1, 1)
    torch.testing.assert_close(seen[0], whole(values) + bias, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_late_fusion_mixes_independent_answers() -> None:
    model = fused(LateOptions(), ["ct", "pet"], "vista3d_tiny")
    weights = model.parts["weights"]  # type: ignore[index]
    weights.copy_(torch.tensor([[0.25, 0.75]]))
    asked = [Prompt("liver"), Prompt("spleen")]
    values = image(2)
    ct, pet = (model.inner.decode(model.inner.encode(values[:, c : c + 1]), asked) for c in (0, 1))
    share = torch.tensor([0.25, 0.75]).reshape(1, 2, 1, 1, 1)
    got = model.decode(model.encode(values), asked)
    torch.testing.assert_close(got, (1 - share) * ct + share * pet, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_late_fusion_mixes_competing_classes_before_they_compete() -> None:
    model = fused(LateOptions(), ["ct", "pet"])
    model.parts["weights"].copy_(torch.tensor([[0.25, 0.75]]))  # type: ignore[index]
    values = image(2)
    ct, pet = (model.inner.dense(model.inner.encode(values[:, c : c + 1])) for c in (0, 1))
    share = torch.full((1, ct.shape[1], 1, 1, 1), 0.75)
    share[:, model.inner.index("liver")] = 0.25
    probability = ((1 - share) * ct + share * pet).softmax(dim=1)[:, model.inner.index("liver")]
    got = model.decode(model.encode(values), [Prompt("liver")])[:, 0]
    torch.testing.assert_close(got.sigmoid(), probability, rtol=1e-3, atol=1e-5)


def test_the_leading_modality_is_the_first_of_the_order_that_is_there() -> None:
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 0, 0]], dtype=torch.bool)
    assert leads(present, (2, 0, 1)).tolist() == [2, 2, 2, 0]
    with pytest.raises(UserError, match="without any modality"):
        leads(torch.zeros(1, 2, dtype=torch.bool), (0, 1))


def test_dropping_keeps_one_and_never_adds() -> None:
    rng = np.random.default_rng(0)
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]], dtype=torch.bool).repeat(4000, 1)
    kept = drop(present, 0.4, rng)
    assert not bool((kept & ~present).any())
    assert bool(kept.any(dim=1).all())
    # complete samples keep one modality with 0.6, or where all three fell (0.4^3) with a third of that
    share = kept[::3].float().mean(dim=0)
    torch.testing.assert_close(share, torch.full((3,), 0.6 + 0.4**3 / 3), atol=0.025, rtol=0)
    assert torch.equal(drop(present, 0.0, rng), present)


def test_all_subsets() -> None:
    assert subsets(["ct", "pet", "mr"]) == [
        *(("ct",), ("pet",), ("mr",)),
        *(("ct", "pet"), ("ct", "mr"), ("pet", "mr")),
        ("ct", "pet", "mr"),
    ]
