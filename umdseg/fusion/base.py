"""The contract every fusion keeps: a backbone that takes any subset of a person's scans at once."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn

from umdseg.backbones.base import Backbone, Features
from umdseg.backbones.card import Card
from umdseg.backbones.listing import Listing
from umdseg.data.fov import reaches
from umdseg.data.geometry import Grid
from umdseg.errors import UserError
from umdseg.fusion.inside import Inside
from umdseg.fusion.options import FusionOptions
from umdseg.fusion.presence import leads, reached
from umdseg.vocabulary import Modality, Origin


class Fused(Inside):
    """A backbone around a backbone: one channel per modality in, the same prompts and logits out.

    Before anything is trained it answers as the plain backbone does on the *leading* scan: the first in
    `order` that the subject has, which is its reference scan (see `build`). A modality that a sample lacks is
    neither an error nor an image of zeros: nothing of it is computed, and what is learned for its absence
    (nothing at first) takes its place; so it is in windows that its field of view does not reach.

    The plain backbone, its adapter, card and learned structures are those of `inner`.

    Windows of training lie on the grid of the reference scan; of a model that takes scans at their own
    spacing (card.spacing None) those of other leading scans have another voxel size than in inference.

    Args:
        inner: the backbone; an adapter may be injected before or after.
        options: of the fusion.
        modalities: one input channel each, in this order.
        order: the same modalities; of those that a sample has, the first in this order leads.

    Attributes:
        kind: registered name.
        order: columns of `modalities`, who leads first.
        parts: everything the fusion trains.
        given: the modalities that `encode` is handed; fewer than `modalities` in a part (see `part`).
        fields: modality -> grid of the scan at hand, whose field of view it fills; empty where nobody said.

    Raises:
        UserError: fewer than two modalities, not each of them in `order` once, or a backbone that cannot be
            fused this way.
    """

    kind: ClassVar[str]
    Options: ClassVar[type[FusionOptions]] = FusionOptions
    # several modalities go through the network in one pass
    one_pass: ClassVar[bool] = False
    # each modality is answered by itself, and the answers are mixed
    mixes: ClassVar[bool] = False
    default_lr: ClassVar[float] = 2e-3

    parts: nn.Module

    def __init__(
        self,
        inner: Backbone,
        options: FusionOptions,
        modalities: Sequence[Modality],
        order: Sequence[Modality],
    ) -> None:
        super().__init__()
        self.inner, self.options = inner, options
        self.modalities, self.given = tuple(modalities), tuple(modalities)
        if len(self.modalities) < 2:
            raise UserError(
                f"fusion '{self.kind}' of {' and '.join(self.modalities) or 'nothing'}",
                where="data.train_modalities",
                expected="two or three modalities",
            )
        why = self.refusal(inner)
        if why:
            raise UserError(
                f"fusion '{self.kind}' does not fit model {inner.card.name}: {why}",
                where="fusion",
                expected="fusion=none, or another fusion or model",
            )
        if sorted(order) != sorted(self.modalities):
            raise UserError(
                f"fusion of {' and '.join(self.modalities)}, of which {', '.join(order) or 'none'} leads",
                where="fusion",
                expected="each of its modalities once",
            )
        self.order = tuple(self.modalities.index(modality) for modality in order)
        self.card = inner.card
        self.random_weights, self.weights_sha256 = inner.random_weights, inner.weights_sha256
        self.state_sha256, self.built_with = inner.state_sha256, inner.built_with
        self.fields: Mapping[Modality, Grid] = {}
        self._origin: Origin | None = None

    @classmethod
    def unsuited(cls, card: Card) -> str:
        """Why models with this card cannot be fused this way, "" where the card has nothing against it."""
        return cls.alone(card)

    @staticmethod
    def alone(told: Card | Listing) -> str:
        """Why a model cannot be fused at all, "" where what is known without its folder is not against it."""
        if "text" in told.prompts:
            return "its whole scans go through its package's own predictor, one at a time"
        return "it answers with finished masks" if told.output == "mask" else ""

    @classmethod
    def refusal(cls, inner: Backbone) -> str:
        """Why a backbone cannot be fused this way, "" where it can."""
        if inner.takes:
            return "it takes several scans of one person already"
        if len(getattr(inner, "networks", ())) > 1:
            return "it is several networks"
        return cls.unsuited(inner.card)

    @abstractmethod
    def fuse(
        self, image: torch.Tensor, affine: torch.Tensor | None, present: torch.Tensor, lead: torch.Tensor
    ) -> Features:
        """Features of complete samples (B, M, X, Y, Z), `present` (B, M) and `lead` (B,)."""

    @property
    def takes(self) -> tuple[Modality, ...]:
        """The modalities that are given together."""
        return self.given

    @property
    def training_window(self) -> tuple[int, int, int]:
        """As the inner backbone's, which an adapter may have made larger."""
        return self.inner.training_window

    @property
    def leading(self) -> Modality:
        """The modality that leads where all that is given is there."""
        return next(self.modalities[i] for i in self.order if self.modalities[i] in self.given)

    def part(self, modalities: Sequence[Modality], fields: Mapping[Modality, Grid] | None = None) -> Fused:
        """The same model where only these modalities are given; it shares every tensor with this one.

        Args:
            modalities: some of `modalities`.
            fields: where their scans lie: outside its field of view a scan is missing (see `reaches`).

        Raises:
            UserError: none, or one that is not fused.
        """
        odd = [m for m in modalities if m not in self.modalities]
        if odd or not modalities:
            told = (
                f"fusion of {' and '.join(self.modalities)} was given {' and '.join(modalities) or 'nothing'}"
            )
            raise UserError(told, expected=f"some of {', '.join(self.modalities)}")
        other = copy.copy(self)
        other.given = tuple(m for m in self.modalities if m in modalities)
        other.fields = dict(fields or {})
        return other

    def reaches(self, modality: Modality, place: Grid) -> bool:
        """Whether the scan at hand is there in a window or slice; the leading one always is.

        A window that the scan's field of view does not meet holds nothing of it: the scan is missing there,
        and not an image of zeros.
        """
        field = self.fields.get(modality)
        return modality == self.leading or field is None or reaches(field, place)

    def encode(
        self,
        image: torch.Tensor,
        affine: torch.Tensor | None = None,
        present: torch.Tensor | None = None,
    ) -> Features:
        """Encode windows of the given modalities on one grid.

        Args:
            image: (B, len(given), X, Y, Z); what a sample lacks may hold anything.
            affine: (B, 4, 4), of all modalities.
            present: (B, len(given)) bool; None = all that is given, where it reaches the window (`fields`).
        """
        if image.shape[1] != len(self.given):
            raise UserError(
                f"{image.shape[1]} channels for fusion '{self.kind}'",
                expected=f"one each of {', '.join(self.given)}",
            )
        if present is None:
            present = reached(self, affine, image)
        if self.given != self.modalities:
            places = [self.modalities.index(name) for name in self.given]
            whole = image.new_zeros(image.shape[0], len(self.modalities), *image.shape[2:])
            whole[:, places] = image
            there = present.new_zeros(present.shape[0], len(self.modalities))
            there[:, places] = present
            image, present = whole, there
        return self.fuse(image, affine, present, leads(present, self.order))

    def release(self) -> Backbone:
        """Take the fusion off and return the plain backbone."""
        return self.inner

    @contextmanager
    def routed(self, origin: Origin | str | None) -> Iterator[None]:
        """Inside the block adapters are those of the modality at work and of the origin's site."""
        before, self._origin = self._origin, None if origin is None else Origin.of(origin)
        learned = self.inner.new_structures
        self.inner.new_structures = self._known_here()
        try:
            yield
        finally:
            self._origin, self.inner.new_structures = before, learned

    def _known_here(self) -> dict[str, int]:
        """Learned structures that the leading scan's adapter knows, where the origin chooses one."""
        if self._origin is None:
            return self.inner.new_structures
        with self.of_modality(self.leading):
            return self.inner.new_structures

    @contextmanager
    def of_modality(self, modality: str) -> Iterator[None]:
        """Inside the block the inner backbone's adapter is the one for this modality."""
        # one origin stands for several scans, whose tracers differ: adapters per tracer are refused
        origin = replace(self._origin or Origin(modality), modality=modality, tracer="")
        with self.inner.routed(origin):
            yield

    def each(
        self, image: torch.Tensor, affine: torch.Tensor | None, present: torch.Tensor
    ) -> dict[int, tuple[torch.Tensor, Features]]:
        """Features of every modality by itself: column -> (samples that have it, their features)."""
        found = {}
        for column, modality in enumerate(self.modalities):
            rows = present[:, column].nonzero()[:, 0]
            if not len(rows):
                continue
            own = None if affine is None else affine[rows.to(affine.device)]
            with self.of_modality(modality):
                found[column] = rows, self.inner.encode(image[rows, column : column + 1], own)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        """As usual, but the network belongs to the inner backbone (modules would be registered here)."""
        if name == "net":
            self.inner.net = value
        else:
            super().__setattr__(name, value)

    @property
    def net(self) -> nn.Module:  # type: ignore[override]
        """The inner backbone's network."""
        return self.inner.net

    @property
    def adapter(self) -> Any:
        """The inner backbone's adapter."""
        return self.inner.adapter

    @adapter.setter
    def adapter(self, adapter: Any) -> None:
        self.inner.adapter = adapter

    @property
    def new_structures(self) -> dict[str, int]:
        """The inner backbone's learned structures."""
        return self.inner.new_structures

    @new_structures.setter
    def new_structures(self, rows: dict[str, int]) -> None:
        self.inner.new_structures = rows
