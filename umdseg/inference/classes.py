"""Class prompts over a whole volume: stitch once, ask for any classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from umdseg.backbones.base import Backbone, Features
from umdseg.data.geometry import Grid
from umdseg.inference.linear import ClassSampler
from umdseg.inference.stitch import Place
from umdseg.vocabulary import Prompt

# up to this size F is stitched for the sake of later classes; beyond it, whichever is smaller: F or the
# logits of the asked classes
DENSE_BYTES = 4 << 30


class ClassScores:
    """Runs the network over a volume for class prompts.

    Where the last layer is linear, its input F (D channels) is stitched once and serves every set of
    classes; when F is too large for memory, the logits of the asked classes are stitched instead,
    which is the same because blending is linear too. So the volume is held in D + 1 channels where that
    takes no more than `DENSE_BYTES`, else in min(D, K) + 1; K logits exist only per part of the output.
    Classes that compete need all N logits to be compared: the volume is held in min(C, N) + 1 channels, C
    those of a linear last layer's input.

    Args:
        backbone: in eval mode.
        grid: place of the preprocessed volume.
        stitch: predictor of one window's channels -> (C + 1, X, Y, Z), see `umdseg.inference.stitch`.
        encode: (1, 1, *window) and its place -> features.
        autocast: makes the context the network runs in.
    """

    def __init__(
        self,
        backbone: Backbone,
        grid: Grid,
        stitch: Callable[[Callable[[torch.Tensor, Place], torch.Tensor]], torch.Tensor],
        encode: Callable[[torch.Tensor, Place], Features],
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._backbone, self._grid = backbone, grid
        self._stitch, self._encode, self._autocast = stitch, encode, autocast
        self._dense: torch.Tensor | None = None
        self._logits: tuple[tuple[str, ...], torch.Tensor] | None = None

    def sampler(self, structures: Sequence[str]) -> ClassSampler:
        """The logits of structures, to be taken on any grid; runs the network where it has not run yet."""
        if self._backbone.card.output == "softmax":
            return self._competing(structures)
        groups = [self._backbone.card.members(name) for name in structures]
        members = tuple(dict.fromkeys(name for group in groups for name in group))
        vectors = self._vectors(members)
        if vectors is not None and self._takes_dense(vectors.shape[1], len(members)):
            if self._dense is None:
                self._dense = self._stitch(self._dense_window)
            rows = [[members.index(name) for name in group] for group in groups]
            return ClassSampler(self._dense, self._grid, vectors, rows)
        if self._logits is None or not set(members) <= set(self._logits[0]):
            self._logits = None
            self._logits = members, self._stitch(self._logit_window(members, vectors))
        names, canvas = self._logits
        rows = [[names.index(name) for name in group] for group in groups]
        return ClassSampler(canvas, self._grid, None, rows)

    def _competing(self, structures: Sequence[str]) -> ClassSampler:
        """Classes of one softmax: the logits of all are blended, and only then compared.

        Where the last layer is linear and its input has fewer channels than there are classes, that input is
        blended in place of the logits.
        """
        rows = self._backbone.competing_rows()
        narrow = rows is not None and rows.shape[1] - 1 < len(rows)
        if self._dense is None:
            self._dense = self._stitch(self._head_window if narrow else self._dense_window)
        members = [self._backbone.card.members(name) for name in structures]
        groups = [[self._backbone.index(member) for member in group] for group in members]
        weights = rows.float().cpu() if rows is not None and narrow else None
        return ClassSampler(self._dense, self._grid, weights, groups, compete=True)

    def _head_window(self, part: torch.Tensor, place: Place) -> torch.Tensor:
        features = self._encode(part, place)
        with self._autocast():
            return self._backbone.head_input(features)[0]

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

    def _takes_dense(self, channels: int, classes: int) -> bool:
        voxels = self._grid.shape[0] * self._grid.shape[1] * self._grid.shape[2]
        return channels <= classes or channels * voxels * 4 <= DENSE_BYTES
