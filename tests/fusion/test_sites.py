"""A fused model with an adapter for each site knows what that site's adapter knows."""

from __future__ import annotations

import pytest
import torch

from umdseg import adapters, fusion
from umdseg.adapters.lora import LoraOptions
from umdseg.backbones import load_backbone
from umdseg.fusion.gated import GatedOptions
from umdseg.fusion.late import LateOptions
from umdseg.vocabulary import Origin, Prompt


@pytest.mark.parametrize("options", [GatedOptions(), LateOptions()], ids=lambda o: o.name)
def test_a_learned_structure_is_unknown_at_a_site_without_an_adapter(options: fusion.FusionOptions) -> None:
    backbone = load_backbone("vista3d_tiny", "random")
    rows = backbone.add_structures(["tumour"])
    adapters.build(LoraOptions(rank=2, per="site")).inject(backbone, rows, ["a"])
    fused = fusion.build(options, backbone, ("ct", "pet"), "ct", ("tumour", "liver")).eval()
    with fused.routed(Origin("ct+pet", site="a")):  # type: ignore[arg-type]
        assert fused.knows("tumour")
        with torch.no_grad():
            logits = fused.decode(fused.encode(torch.rand(1, 2, 16, 16, 16)), [Prompt("tumour")])
        assert logits.shape == (1, 1, 16, 16, 16)
    with fused.routed(Origin("ct+pet", site="b")):  # type: ignore[arg-type]
        assert not fused.knows("tumour")
        assert fused.knows("liver")
    assert "tumour" in backbone.new_structures, "outside of the block all that was learned is listed"
