"""The registered models of the family."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from umdseg.backbones.card import Card
from umdseg.backbones.listing import listed
from umdseg.backbones.sam2d import networks
from umdseg.backbones.sam2d.backbone import Sam2d
from umdseg.backbones.sam2d.cards import (
    PARAMETERS,
    PARAMETERS_SAM2,
    medsam2_card,
    medsam_card,
    sam2_tiny_card,
    sam_vit_b_card,
    sam_vit_h_card,
    sam_vit_l_card,
)
from umdseg.backbones.sam2d.options import Sam2dOptions
from umdseg.backbones.sam2d.pictures import Style
from umdseg.backbones.sam2d.sam2 import Sam2
from umdseg.backbones.weights import load_weights
from umdseg.errors import UserError

_FAMILY = "sam2d"


@listed(sam_vit_b_card, family=_FAMILY, parameters=PARAMETERS["sam_vit_b"], options=Sam2dOptions)
def sam_vit_b(options: Sam2dOptions) -> Sam2d:
    """SAM ViT-B."""
    return _built(Sam2d, sam_vit_b_card(), networks.sam(networks.VIT_B), "sam", options)


@listed(sam_vit_l_card, family=_FAMILY, parameters=PARAMETERS["sam_vit_l"], options=Sam2dOptions)
def sam_vit_l(options: Sam2dOptions) -> Sam2d:
    """SAM ViT-L."""
    return _built(Sam2d, sam_vit_l_card(), networks.sam(networks.VIT_L), "sam", options)


@listed(sam_vit_h_card, family=_FAMILY, parameters=PARAMETERS["sam_vit_h"], options=Sam2dOptions)
def sam_vit_h(options: Sam2dOptions) -> Sam2d:
    """SAM ViT-H."""
    return _built(Sam2d, sam_vit_h_card(), networks.sam(networks.VIT_H), "sam", options)


@listed(medsam_card, family=_FAMILY, parameters=PARAMETERS["sam_vit_b"], options=Sam2dOptions)
def medsam(options: Sam2dOptions) -> Sam2d:
    """MedSAM."""
    return _built(Sam2d, medsam_card(), networks.sam(networks.VIT_B), "medsam", options)


@listed(sam2_tiny_card, family=_FAMILY, parameters=PARAMETERS_SAM2, options=Sam2dOptions)
def sam2_tiny(options: Sam2dOptions) -> Sam2d:
    """SAM 2.1 tiny."""
    return _built(Sam2, sam2_tiny_card(), networks.sam2(1024), "sam2", options)


@listed(medsam2_card, family=_FAMILY, parameters=PARAMETERS_SAM2, options=Sam2dOptions)
def medsam2(options: Sam2dOptions) -> Sam2d:
    """MedSAM2."""
    return _built(Sam2, medsam2_card(), networks.sam2(512), "medsam2", options)


def _built(kind: type[Sam2d], card: Card, net: nn.Module, style: Style, options: Sam2dOptions) -> Sam2d:
    options.validate()
    if options.propagate != "box" and "point" not in card.prompts:
        raise UserError(
            f"model {card.name} takes boxes only, so nothing else can lead from slice to slice",
            where="model.propagate",
            expected="box",
        )
    if options.channels == "neighbours":
        # a training patch needs the slices on both sides
        card = replace(card, window=(*card.window[:2], 3))
    return load_weights(kind(card, net, style, options), options)
