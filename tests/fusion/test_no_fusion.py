"""No fusion: one modality at a time, unchanged."""

from __future__ import annotations

import pytest
import torch

from umdseg import load_backbone
from umdseg.errors import UserError
from umdseg.fusion.none import FusionOptions, NoFusion


def test_one_modality_passes_through_and_two_are_refused() -> None:
    backbone, x = load_backbone("vista3d_tiny", "random"), torch.rand(1, 1, 16, 16, 16)
    fusion = NoFusion(FusionOptions())
    with torch.no_grad():
        found = fusion.encode(backbone, {"pet": x}).maps
        expected = backbone.encode(x).maps
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    with pytest.raises(UserError, match="one modality at a time, not ct, pet"):
        fusion.encode(backbone, {"ct": x, "pet": x})
