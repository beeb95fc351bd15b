"""Slices shown in another way than in training are no way to use an adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from umdseg.adapters import AdapterCard, build, load_adapter
from umdseg.adapters.lora import LoraOptions
from umdseg.config.check import check
from umdseg.errors import UserError
from umdseg.runs.evaluate import with_card


def test_channels_are_those_of_training_or_the_adapter_is_refused(make, tmp_path: Path) -> None:
    def model(**options):
        backbone = make("sam", name="sam_vit_b", **options)
        backbone.built_with = backbone.options
        return backbone

    trained = model(channels="neighbours", propagate="point")
    adapter = build(LoraOptions(rank=2))
    adapter.inject(trained)
    with torch.no_grad():
        for name, value in trained.net.named_parameters():
            if "lora_B" in name:
                value.fill_(0.01)
    adapter.save(tmp_path / "a", trained, AdapterCard.describe(trained, (), ["ct"]))

    # the user names neither model nor options
    options = with_card(check("evaluate", []), AdapterCard.read(tmp_path / "a")).model
    again = model(channels=options.channels, propagate=options.propagate)
    load_adapter(tmp_path / "a", again)
    patch = torch.rand(1, 1, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    seen = [m.encode(patch).maps[0] for m in (trained.eval(), again.eval())]
    torch.testing.assert_close(seen[0], seen[1])

    plain = model()
    with pytest.raises(UserError, match=r"model.channels neighbours, not repeat"):
        load_adapter(tmp_path / "a", plain)
    assert plain.adapter is None
    # how masks go from slice to slice is a matter of inference: a user may ask for another way
    load_adapter(tmp_path / "a", model(channels="neighbours"))
