"""Fusion: several scans of one person at once, starting as the pretrained model of one."""

from __future__ import annotations

from collections.abc import Sequence

from umdseg import registry
from umdseg.backbones.base import Backbone
from umdseg.fusion.base import Fused
from umdseg.fusion.options import FusionOptions
from umdseg.fusion.saved import load_fusion, save_fusion
from umdseg.vocabulary import Modality, by_reference

__all__ = ["Fused", "FusionOptions", "build", "load_fusion", "save_fusion"]


def build(
    options: FusionOptions,
    backbone: Backbone,
    modalities: Sequence[Modality],
    reference: str = "ct",
    structures: Sequence[str] = (),
) -> Backbone:
    """The backbone with the fusion its options name; the backbone itself for `none`.

    Only the fusion's own tensors require gradients afterwards, beside what an adapter trains.

    Args:
        options: of the fusion.
        backbone: plain or adapted.
        modalities: one input channel each.
        reference: the modality that leads where it is there; else ct, mr, pet, as `Subject.reference`.
        structures: those that late fusion weighs one by one.

    Raises:
        UserError: fewer than two modalities, or the fusion does not fit the backbone.
    """
    if options.name == "none":
        return backbone
    factory: type[Fused] = registry.resolve("fusion", options.name)
    told = {"structures": structures} if options.name == "late" else {}
    order = [modality for modality in by_reference(reference) if modality in modalities]
    return factory(backbone, options, modalities, order, **told)
