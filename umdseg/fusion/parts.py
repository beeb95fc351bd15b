"""Features of batches whose samples start from different modalities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from umdseg.backbones.base import Backbone, Features

if TYPE_CHECKING:
    from umdseg.fusion.base import Fused


@dataclass
class PartedFeatures(Features):
    """Features with the modality that each sample starts from.

    Attributes:
        lead: (B,) column of the fused modalities.
    """

    lead: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

    def sample(self, index: int) -> PartedFeatures:
        """The features of one sample of the batch (B becomes 1)."""
        one = super().sample(index)
        return PartedFeatures(one.maps, one.affine, one.shape, one.state, lead=self.lead[index : index + 1])


def gather(found: Mapping[int, tuple[torch.Tensor, Features]], lead: torch.Tensor) -> Features:
    """The features of each sample's leading modality, in the order of the batch.

    Args:
        found: column -> samples that have the modality, their features.
        lead: (B,) column.
    """
    first = next(iter(found.values()))[1]
    maps = [m.new_zeros(len(lead), *m.shape[1:]) for m in first.maps]
    affine = first.affine.new_zeros(len(lead), 4, 4)
    for column, (rows, features) in found.items():
        own = lead[rows] == column
        places = rows[own]
        if len(places):
            maps = [
                m.index_copy(0, places, f[own].to(m.dtype)) for m, f in zip(maps, features.maps, strict=True)
            ]
            there = own.to(affine.device)
            affine = affine.index_copy(0, places.to(affine.device), features.affine[there].to(affine.dtype))
    kept = {k: v for k, v in first.state.items() if not isinstance(v, torch.Tensor)}
    return Features(maps, affine, first.shape, kept)


def by_lead(fused: Fused, features: Features, run: Callable[[Features], torch.Tensor]) -> torch.Tensor:
    """Run something on features under the adapter of each sample's leading modality.

    Where one adapter (or none) serves all modalities the batch goes through whole.

    Args:
        fused: the model.
        features: of a batch.
        run: features -> (B, ...).
    """
    routes = fused.inner.adapter.routes if fused.inner.adapter is not None else ()
    columns = sorted(set(features.lead.tolist())) if isinstance(features, PartedFeatures) else []
    if not routes or not columns:
        return run(features)
    if len(columns) == 1:
        with fused.of_modality(fused.modalities[columns[0]]):
            return run(features)
    assert isinstance(features, PartedFeatures)
    answers = []
    for index, column in enumerate(features.lead.tolist()):
        with fused.of_modality(fused.modalities[column]):
            answers.append(run(features.sample(index)))
    return torch.cat(answers)


def channels_of(backbone: Backbone) -> list[int]:
    """Channels of every map that the encoder gives, found with a small window of zeros."""
    card = backbone.card
    edges = card.window if card.divisor >= min(card.window) else (2 * card.divisor,) * 3
    if card.slicewise:
        edges = (card.window[0], card.window[1], 1)
    device = next(backbone.net.parameters()).device
    training = backbone.training
    backbone.eval()
    try:
        # maps are as wide with an adapter as without; without one nobody need say where a scan comes from
        bare = nullcontext() if backbone.adapter is None else backbone.adapter.disable(backbone)
        with torch.no_grad(), bare:
            features = backbone.encode(torch.zeros(1, 1, *edges, device=device))
    finally:
        backbone.train(training)
    return [int(m.shape[1]) for m in features.maps]
