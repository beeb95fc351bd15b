"""Starting one part of a network from another, and tuning chosen parts only."""

from __future__ import annotations

import pytest
import torch

from umdseg import load_backbone
from umdseg.adapters.full import FullOptions, FullTuning
from umdseg.errors import UserError
from umdseg.tasks.warm_start import copy_parts

POINT, AUTO = "image_encoder.up_layers", "image_encoder.up_layers_auto"


def test_the_click_decoder_becomes_the_class_decoder_and_stays_separate() -> None:
    torch.manual_seed(0)
    net = load_backbone("vista3d_tiny", "random").net
    parts = dict(net.named_modules())
    with torch.no_grad():
        for parameter in parts[AUTO].parameters():
            parameter.add_(1.0)
    copy_parts(net, {POINT: AUTO})
    pairs = list(zip(parts[POINT].parameters(), parts[AUTO].parameters(), strict=True))
    assert pairs
    assert all(torch.equal(a, b) for a, b in pairs)
    with torch.no_grad():
        pairs[0][0].add_(1.0)
    assert not torch.equal(*pairs[0])


def test_unknown_and_unlike_parts_are_refused() -> None:
    net = load_backbone("vista3d_tiny", "random").net
    with pytest.raises(UserError, match=r"image_encoder\.up_layer'"):
        copy_parts(net, {"image_encoder.up_layer": AUTO})
    with pytest.raises(UserError, match="differ in shape"):
        copy_parts(net, {"point_head": "class_head"})


def test_full_tuning_of_chosen_parameters_trains_just_these() -> None:
    backbone = load_backbone("vista3d_tiny", "random")
    FullTuning(FullOptions(targets=r"point_head\.")).inject(backbone)
    trained = {name for name, p in backbone.net.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in backbone.net.named_parameters() if name.startswith("point_head.")}
    other = load_backbone("vista3d_tiny", "random")
    with pytest.raises(UserError, match="no parameter"):
        FullTuning(FullOptions(targets="nothing_here")).inject(other)
