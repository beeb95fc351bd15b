"""Modalities given together in one training step."""

from __future__ import annotations

from dataclasses import replace

from umdseg.backbones.base import Backbone, Features
from umdseg.data.paired import PairedBatch
from umdseg.errors import UserError
from umdseg.fusion.base import Fused
from umdseg.fusion.presence import drop
from umdseg.seeds import generator
from umdseg.vocabulary import Batch


def together(
    batch: Batch | PairedBatch,
    backbone: Backbone | None = None,
    seed: int = 0,
    number: int = 0,
    rank: int = 0,
) -> Batch:
    """One batch, as the task takes it; a paired one with the fusion's share of modalities left out.

    Args:
        batch: of single scans, or of pairs.
        backbone: None, or the fused model whose `dropout` decides what is left out.
        seed: the run's seed.
        number: of the step.
        rank: of the process.
    """
    if isinstance(batch, Batch):
        return batch
    joined = batch.joined()
    if isinstance(backbone, Fused) and joined.present is not None:
        rng = generator(seed, "modality dropout", number, rank)
        joined = replace(joined, present=drop(joined.present, backbone.options.dropout, rng))
    return joined


def encoded(backbone: Backbone, batch: Batch) -> Features:
    """Features of a batch, of one scan each or of several together.

    Raises:
        UserError: pairs for a model without fusion.
    """
    if batch.present is None:
        return backbone.encode(batch.image, batch.affine)
    if not isinstance(backbone, Fused):
        raise UserError(
            f"model {backbone.card.name} takes one scan at a time",
            where="data.paired",
            expected="false, or a fusion (fusion=gated)",
        )
    return backbone.encode(batch.image, batch.affine, batch.present)
