"""Which stage a trained model's rows have, and whether there is anything to measure before training."""

from __future__ import annotations

from umdseg.backbones.base import Backbone
from umdseg.config.schema import Settings
from umdseg.vocabulary import Stage


def trained_stage(backbone: Backbone, method: str) -> Stage:
    """`supervised` for a from-scratch network trained whole, the reference of the excess gap; else `adapted`.

    Args:
        backbone: the model; its weights are those it had before training.
        method: registered name of the adapter.
    """
    return "supervised" if starts_from_nothing(backbone) and method == "full" else "adapted"


def starts_from_nothing(backbone: Backbone) -> bool:
    """Whether this is a from-scratch network without weights, of which zero-shot answers mean nothing."""
    return backbone.card.scratch and backbone.random_weights


def measures_before(settings: Settings, backbone: Backbone) -> bool:
    """Whether train.py scores the model before it fits it."""
    wanted = settings.callbacks.evaluate_before and settings.run.task != "pretrain"
    return wanted and not starts_from_nothing(backbone)
