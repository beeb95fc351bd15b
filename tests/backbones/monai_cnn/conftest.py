"""Every model of the family at reduced size: the official classes, narrow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from umdseg import load_backbone
from umdseg.backbones.monai_cnn import models
from umdseg.backbones.monai_cnn.backbone import ClassNet

UNET = {"width": 4, "levels": 3, "spacing": (6.0, 6.0, 6.0), "window": (32, 32, 32)}


def segresnet_ds(outputs: int):
    from monai.networks.nets import SegResNetDS

    return SegResNetDS(init_filters=4, out_channels=outputs, blocks_down=(1, 1, 1, 1, 1), dsdepth=4)


def segresnet(outputs: int, filters: int, dropout: float):
    from monai.networks.nets import SegResNet

    return SegResNet(init_filters=8, out_channels=outputs, dropout_prob=dropout, blocks_down=(1, 1, 1, 1))


def swin_unetr(outputs: int, features: int = 48, v2: bool = False):
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(in_channels=1, out_channels=outputs, feature_size=12, window_size=3, use_v2=v2)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ClassNet]:
    """`small(name, weights="random", **options)` is `load_backbone` with narrow networks."""
    monkeypatch.setattr(models, "_ctfm", segresnet_ds)
    monkeypatch.setattr(models, "_segresnet", segresnet)
    monkeypatch.setattr(models, "_swin", swin_unetr)

    def make(name: str, weights: str | None = "random", **options):
        torch.manual_seed(0)
        sized = UNET if name in ("unet", "resenc_unet") else {}
        if name == "resenc_unet":
            pytest.importorskip("dynamic_network_architectures")
        backbone = load_backbone(name, weights, **{**sized, **options})
        spread(backbone)
        return backbone

    return make


def spread(backbone: ClassNet) -> None:
    """Other statistics than 0 and 1 for batch norm, and logits that differ by more than rounding."""
    noise = torch.Generator().manual_seed(1)
    for module in backbone.net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=noise) * 0.1)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=noise) + 0.5)
    with torch.no_grad():
        backbone._last().weight.mul_(5)
