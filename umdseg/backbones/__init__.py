"""Foundation models behind one contract: encode an image once, decode any prompts."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from umdseg import registry
from umdseg.backbones.base import Backbone, Features
from umdseg.backbones.card import Card, Crop, Intensity, Weights
from umdseg.backbones.options import ModelOptions
from umdseg.backbones.windows import windowed
from umdseg.errors import unknown

__all__ = [
    "Backbone",
    "Card",
    "Crop",
    "Features",
    "Intensity",
    "ModelOptions",
    "Weights",
    "build",
    "load_backbone",
]


def load_backbone(
    name: str, weights: str | None = None, *, accept_licence: bool = False, **options: Any
) -> Backbone:
    """Build a registered model and load its weights.

    Args:
        name: registered name (`umdseg list`).
        weights: None = the card's own source, `random`, or the path of a weights file.
        accept_licence: needed where downloaded weights have restricted or disputed terms.
        options: further fields of the model's own options (`model.<name>=` on the command line).

    Returns:
        The backbone in eval mode.

    Raises:
        UserError: unknown name, weights missing, or weights of another network.
    """
    cls = getattr(registry.resolve("model", name), "Options", ModelOptions)
    known = [spec.name for spec in fields(cls)]
    for key in options:
        if key not in known:
            raise unknown(f"option of model {name}", key, known)
    return build(cls(name=name, weights=weights, accept_licence=accept_licence, **options))


def build(options: ModelOptions) -> Backbone:
    """The model its options name, in eval mode, on the window they name.

    Raises:
        UserError: as `load_backbone`, or a window that does not fit the model.
    """
    backbone: Backbone = registry.resolve("model", options.name)(options)
    backbone.card = windowed(backbone.card, options.window)
    backbone.built_with = options
    return backbone.eval()
