"""Foundation models behind one contract: encode an image once, decode any prompts."""

from __future__ import annotations

from umdseg import registry
from umdseg.backbones.base import Backbone, Features
from umdseg.backbones.card import Card, Crop, Intensity, Weights
from umdseg.backbones.options import ModelOptions

__all__ = [
    "Backbone",
    "Card",
    "Crop",
    "Features",
    "Intensity",
    "ModelOptions",
    "Weights",
    "load_backbone",
]


def load_backbone(name: str, weights: str | None = None, *, accept_licence: bool = False) -> Backbone:
    """Build a registered model and load its weights.

    Args:
        name: registered name (`umdseg list`).
        weights: None = the card's own source, `random`, or the path of a weights file.
        accept_licence: needed where downloaded weights have restricted or disputed terms.

    Returns:
        The backbone in eval mode.

    Raises:
        UserError: unknown name, weights missing, or weights of another network.
    """
    options = ModelOptions(name=name, weights=weights, accept_licence=accept_licence)
    backbone: Backbone = registry.resolve("model", name)(options)
    return backbone.eval()
