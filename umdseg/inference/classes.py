"""Class prompts over a whole volume: stitch once, ask for any classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from umdseg.backbones.base import Backbone, Features
from umdseg.inference.session import BACKGROUND
from umdseg.inference.stitch import Place
from umdseg.vocabulary import Prompt

# F is stitched for all classes as long as it takes no more than this
DENSE_BYTES = 4 << 30


class ClassScores:
    """Logits by class on the network's grid.

    Where the last layer is linear, its input F (D channels) is stitched once and serves every set of
    classes; when F is too large for memory, the logits of the asked classes are stitched instead,
    which is the same because blending is linear too.

    Args:
        backbone: in eval mode.
        stitch: predictor of one window's channels -> (C + 1, X, Y, Z), see `umdseg.inference.stitch`.
        encode: (1, 1, *window) and its place -> features.
        autocast: makes the context the network runs in.
        voxels: of the volume.
    """

    def __init__(
        self,
        backbone: Backbone,
        stitch: Callable[[Callable[[torch.Tensor, Place], torch.Tensor]], torch.Tensor],
        encode: Callable[[torch.Tensor, Place], Features],
        autocast: Callable[[], AbstractContextManager[Any]],
        voxels: int,
    ) -> None:
        self._backbone, self._stitch, self._encode, self._autocast = backbone, stitch, encode, autocast
        self._voxels = voxels
        self._dense: torch.Tensor | None = None
        self._logits: tuple[tuple[str, ...], torch.Tensor] | None = None

    def logits(self, structures: Sequence[str]) -> torch.Tensor:
        """(K, X, Y, Z) float32: a group's logit is its largest member's; background where nobody looked."""
        groups = [self._backbone.card.members(name) for name in structures]
        members = tuple(dict.fromkeys(name for group in groups for name in group))
        plane = self._planes(members)
        unseen = plane(None) == 0
        logits = torch.empty(len(structures), *unseen.shape)
        for k, group in enumerate(groups):
            logits[k] = plane(group[0])
            # one member at a time: a group of 60 bones needs no more memory than one
            for name in group[1:]:
                torch.maximum(logits[k], plane(name), out=logits[k])
        return logits.masked_fill_(unseen, BACKGROUND)

    def _planes(self, members: tuple[str, ...]) -> Callable[[str | None], torch.Tensor]:
        """A function giving one member's logits (X, Y, Z), and for None where the network looked."""
        vectors = self._vectors(members)
        if vectors is not None and self._fits(vectors.shape[1], len(members)):
            if self._dense is None:
                self._dense = self._stitch(self._dense_window)
            dense, rows = self._dense, dict(zip(members, vectors, strict=True))
            return lambda name: (
                dense[-1] if name is None else torch.einsum("d,dxyz->xyz", rows[name], dense[:-1])
            )
        if self._logits is None or not set(members) <= set(self._logits[0]):
            self._logits = None
            self._logits = members, self._stitch(self._logit_window(members, vectors))
        names, canvas = self._logits
        return lambda name: canvas[-1 if name is None else names.index(name)]

    def _dense_window(self, part: torch.Tensor, place: Place) -> torch.Tensor:
        features = self._encode(part, place)
        with self._autocast():
            return self._backbone.dense(features)[0]

    def _logit_window(
        self, members: tuple[str, ...], vectors: torch.Tensor | None
    ) -> Callable[[torch.Tensor, Place], torch.Tensor]:
        def predict(part: torch.Tensor, place: Place) -> torch.Tensor:
            if vectors is not None:
                # in float32: logits near 0 decide
                return torch.einsum("kd,dxyz->kxyz", vectors, self._dense_window(part, place).float().cpu())
            features = self._encode(part, place)
            with self._autocast():
                return self._backbone.decode(features, [Prompt(name) for name in members])[0]

        return predict

    def _vectors(self, members: tuple[str, ...]) -> torch.Tensor | None:
        return self._backbone.class_vectors(members).float().cpu() if self._backbone.has_dense else None

    def _fits(self, channels: int, classes: int) -> bool:
        return channels <= classes or channels * self._voxels * 4 <= DENSE_BYTES
