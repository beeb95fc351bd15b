"""Modalities given together in one training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from umdseg.backbones.base import Backbone, Features
from umdseg.data.paired import PairedBatch
from umdseg.errors import UserError
from umdseg.fusion.base import Fused
from umdseg.fusion.presence import drop, leads, subsets
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

    The label follows the scan that leads then: augmentation may have moved it beside the others.

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
        present = drop(joined.present, backbone.options.dropout, rng)
        joined = replace(joined, present=present, label=_label(batch, leads(present, backbone.order)))
    return joined


def _label(batch: PairedBatch, lead: torch.Tensor) -> torch.Tensor:
    """(B, 1, X, Y, Z): each sample's label as it lies on the scan that leads, moved as that is."""
    label = batch.label
    for modality, moved in batch.labels.items():
        leading = lead == list(batch.image).index(modality)
        label = torch.where(leading.reshape(-1, 1, 1, 1, 1), moved, label)
    return label


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


def called(modalities: Sequence[str]) -> str:
    """What modalities given together are called where they are scored: `ct+pet`."""
    return "+".join(modalities)


def subset_of(batch: Batch, backbone: Backbone) -> list[str]:
    """`subset` of every sample, as in case tables: what it has and was not left out; "" of one scan each."""
    if batch.present is None or not isinstance(backbone, Fused):
        return [""] * len(batch.subject)
    columns = backbone.modalities
    rows = batch.present.tolist()
    return [called([m for m, there in zip(columns, row, strict=True) if there]) for row in rows]


def parts_of(batch: Batch, backbone: Backbone) -> list[Batch]:
    """A validation batch as it is; of modalities given together, every subset that all its samples have."""
    if batch.present is None or not isinstance(backbone, Fused):
        return [batch]
    found = []
    for given in subsets(backbone.modalities):
        mask = torch.tensor([m in given for m in backbone.modalities], device=batch.present.device)
        if bool(batch.present[:, mask].all()):
            named = [called(given)] * len(batch.subject)
            found.append(replace(batch, modality=named, present=mask.expand_as(batch.present)))
    return found


def groups(backbone: Backbone, lr: float, method: str) -> list[dict[str, Any]]:
    """Parameter groups: what an adapter trains, and what a fusion does, which has a rate of its own.

    Args:
        backbone: the model.
        lr: peak learning rate of the adapter; of everything, where there is none (method none).
        method: registered name of the adapter.
    """
    own = list(backbone.parts.parameters()) if isinstance(backbone, Fused) else []
    known = {id(p) for p in own}
    adapted = [p for p in backbone.parameters() if p.requires_grad and id(p) not in known]
    found: list[dict[str, Any]] = [{"params": adapted, "lr": lr}] if adapted else []
    if isinstance(backbone, Fused):
        rate = backbone.options.lr
        rate = (lr if method == "none" else backbone.default_lr) if rate is None else rate
        found.append({"params": own, "lr": rate})
    return found
