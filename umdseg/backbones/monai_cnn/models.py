"""The pretrained models of this family, each the official network of MONAI with its published weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import torch

from umdseg.backbones.listing import listed
from umdseg.backbones.monai_cnn import cards
from umdseg.backbones.monai_cnn.networks import SegResNet, SegResNetDS, SwinUnetr
from umdseg.backbones.options import ModelOptions
from umdseg.backbones.weights import load_weights

FAMILY = "monai_cnn"
# what of Swin UNETR its pretrainings publish
TRANSFORMER = ("swinViT.",)
ENCODERS = ("swinViT.", "encoder")
ALL_BUT_HEAD = ("swinViT.", "encoder", "decoder")
FEATURES = {"B": 48, "L": 96, "H": 192}

Made = TypeVar("Made")


def seeded(make: Callable[[], Made]) -> Made:
    """What `make` gives, its random weights depending on the run's seed only, not on what was drawn before.

    A saved adapter names the exact base it belongs to; a base with random parts must come out the same
    again.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.initial_seed())
        return make()


@listed(cards.ctfm_wholebody, family=FAMILY, parameters=87_220_344)
def ctfm_wholebody(options: ModelOptions) -> SegResNetDS:
    """CT-FM, whole-body segmentation."""
    return load_weights(SegResNetDS(cards.ctfm_wholebody(), _ctfm(118)), options)


@listed(cards.ctfm, family=FAMILY, parameters=87_163_716)
def ctfm(options: ModelOptions) -> SegResNetDS:
    """CT-FM, the pretrained encoder under a fresh decoder."""
    return load_weights(SegResNetDS(cards.ctfm(), _ctfm(1), pretrained=("encoder.",)), options)


@listed(cards.monai_wholebody, family=FAMILY, parameters=18_799_401)
def monai_wholebody(options: ModelOptions) -> SegResNet:
    """MONAI's whole-body CT bundle, 1.5 mm."""
    return load_weights(SegResNet(cards.monai_wholebody(), _segresnet(105, 32, 0.2)), options)


@listed(partial(cards.monai_wholebody, fast=True), family=FAMILY, parameters=18_799_401)
def monai_wholebody_fast(options: ModelOptions) -> SegResNet:
    """MONAI's whole-body CT bundle, 3 mm."""
    return load_weights(SegResNet(cards.monai_wholebody(fast=True), _segresnet(105, 32, 0.2)), options)


@listed(cards.suprem, family=FAMILY, parameters=4_701_424)
def suprem(options: ModelOptions) -> SegResNet:
    """SuPreM's SegResNet."""
    return load_weights(SegResNet(cards.suprem(), _segresnet(32, 16, 0.0)), options)


@listed(cards.swinunetr_btcv, family=FAMILY, parameters=62_187_296)
def swinunetr_btcv(options: ModelOptions) -> SwinUnetr:
    """MONAI's BTCV bundle."""
    return load_weights(SwinUnetr(cards.swinunetr_btcv(), _swin(14)), options)


@listed(cards.swinunetr_ssl, family=FAMILY, parameters=62_186_659)
def swinunetr_ssl(options: ModelOptions) -> SwinUnetr:
    """A self-supervised transformer under fresh convolutions."""
    return load_weights(SwinUnetr(cards.swinunetr_ssl(), _swin(1), TRANSFORMER), options)


@listed(cards.swinunetr_suprem, family=FAMILY, parameters=62_186_659)
def swinunetr_suprem(options: ModelOptions) -> SwinUnetr:
    """SuPreM's Swin UNETR under a fresh head."""
    return load_weights(SwinUnetr(cards.swinunetr_suprem(), _swin(1), ALL_BUT_HEAD), options)


@dataclass
class VocoOptions(ModelOptions):
    """Options of VoCo's models.

    Attributes:
        size: B (73 M parameters), L (290 M) or H (1.2 billion).
    """

    name: str = "swinunetr_voco"
    size: Literal["B", "L", "H"] = "B"


@listed(cards.swinunetr_voco, family=FAMILY, parameters=72_762_999)
def swinunetr_voco(options: VocoOptions) -> SwinUnetr:
    """VoComni, supervised by pseudo-labels."""
    card = cards.swinunetr_voco(options.size)
    return load_weights(SwinUnetr(card, _swin(21, FEATURES[options.size], v2=True)), options)


@listed(partial(cards.swinunetr_voco, head=False), family=FAMILY, parameters=72_762_019)
def swinunetr_voco_ssl(options: VocoOptions) -> SwinUnetr:
    """VoCo, the self-supervised encoders under a fresh decoder."""
    card = cards.swinunetr_voco(options.size, head=False)
    return load_weights(SwinUnetr(card, _swin(1, FEATURES[options.size], v2=True), ENCODERS), options)


def _ctfm(outputs: int) -> Any:
    from monai.networks.nets import SegResNetDS as Network

    blocks = (1, 2, 2, 4, 4)
    return seeded(lambda: Network(init_filters=32, out_channels=outputs, blocks_down=blocks, dsdepth=4))


def _segresnet(outputs: int, filters: int, dropout: float) -> Any:
    from monai.networks.nets import SegResNet as Network

    return seeded(lambda: Network(init_filters=filters, out_channels=outputs, dropout_prob=dropout))


def _swin(outputs: int, features: int = 48, v2: bool = False) -> Any:
    from monai.networks.nets import SwinUNETR

    return seeded(lambda: SwinUNETR(in_channels=1, out_channels=outputs, feature_size=features, use_v2=v2))


swinunetr_voco.Options = VocoOptions  # type: ignore[attr-defined]
swinunetr_voco_ssl.Options = VocoOptions  # type: ignore[attr-defined]
