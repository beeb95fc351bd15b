"""The contract every adapter keeps: identity at start, base frozen, saved alone, removable."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from umdseg.adapters.card import AdapterCard
from umdseg.adapters.matrix import check
from umdseg.adapters.routes import Per, route_of
from umdseg.backbones.base import Backbone
from umdseg.backbones.weights import state_hash
from umdseg.errors import UserError
from umdseg.vocabulary import Origin


@dataclass
class AdapterOptions:
    """Options every adapter takes.

    Attributes:
        name: registered name.
        path: folder of a saved adapter; then method, structures and class rows come from its card.
    """

    name: str = "none"
    path: str | None = None


@dataclass
class RoutedOptions(AdapterOptions):
    """Options of adapters of which a model can carry several.

    Attributes:
        per: modality, tracer or site: each that is trained on gets an adapter of its own, and scans of
            others the base model. None = one adapter for all.
    """

    per: Per | None = None


class Adapter(ABC):
    """One way of adapting a backbone.

    Attributes:
        method: registered name.
        Options: its option dataclass.
        default_lr: peak learning rate where the user gives none.
        needs: what a model must have for the method to go with it: fields of
            `umdseg.adapters.matrix.Traits`.
        routes: names of several adapters of one kind (modalities, tracers or sites, as
            `umdseg.adapters.routes` spells them); empty = there is one.
    """

    method: ClassVar[str]
    default_lr: ClassVar[float] = 2e-3
    needs: ClassVar[tuple[str, ...]] = ("logits",)
    Options: ClassVar[type[AdapterOptions]] = AdapterOptions

    def __init__(self, options: AdapterOptions) -> None:
        self.options = options
        self.routes: tuple[str, ...] = ()
        self._route: str | None = None
        self._off = False
        self._base_parameters = 0
        self._told: set[str] = set()

    @property
    def _several(self) -> str:
        return {"modality": "modalities", "tracer": "tracers", "site": "sites"}[self.per or "modality"]

    @property
    def per(self) -> Per | None:
        """What chooses among several adapters; None where there is one."""
        chosen: Per | None = getattr(self.options, "per", None)
        return chosen or ("modality" if self.routes else None)

    def inject(
        self,
        backbone: Backbone,
        new_structures: Mapping[str, int] | None = None,
        routes: Sequence[str] = (),
    ) -> None:
        """Put the adapter into the backbone; outputs stay what they were.

        The base is frozen; what the method trains, and the class rows of new structures, are not.

        Args:
            backbone: the plain model.
            new_structures: learned structure -> class row, from `backbone.add_structures`;
                None = all the backbone has been given.
            routes: modalities, tracers or sites that get an adapter each; empty = one adapter for all.

        Raises:
            UserError: the options do not fit the backbone.
        """
        if backbone.adapter is not None:
            raise ValueError(f"{backbone.card.name} already carries adapter '{backbone.adapter.method}'")
        check(self.method, backbone, getattr(self.options, "targets", None))
        self.routes = tuple(routes)
        if self.per and not self.routes:
            raise UserError(f"no {self.per} to give an adapter to", where="adapter.per", expected="null")
        rows = dict(backbone.new_structures if new_structures is None else new_structures)
        self._learned = backbone.new_structures
        known = backbone.card.structures.values()
        self._base_parameters = sum(p.numel() for p in backbone.net.parameters())
        self._inject(backbone, sorted(row for row in rows.values() if row not in known))
        backbone.adapter = self

    def parameters(self, backbone: Backbone) -> tuple[int, int]:
        """(trained by this adapter, in the network without the adapter)."""
        return sum(p.numel() for p in backbone.net.parameters() if p.requires_grad), self._base_parameters

    @contextmanager
    def disable(self, backbone: Backbone) -> Iterator[None]:
        """Inside the block the backbone is the base model, bit for bit, without learned structures."""
        learned, backbone.new_structures = backbone.new_structures, {}
        off, self._off = self._off, True
        try:
            with self._disabled(backbone):
                yield
        finally:
            backbone.new_structures, self._off = learned, off

    def route(self, origin: Origin | str | None) -> str | None:
        """The adapter that scans of this origin go through; None: the base model's, or there is one for all.

        Raises:
            UserError: there are several adapters, and nothing at all is known to choose by.
        """
        origin, per = Origin.of(origin), self.per
        if per is None or not self.routes:
            return None
        if origin.modality is None and not getattr(origin, per):
            raise UserError(
                f"the model has one adapter per {per}, and the image's is not known",
                expected=f"{per}={'|'.join(self.routes)}, or another for the base model",
            )
        route = route_of(origin, per)
        if route in self.routes:
            return route
        if per != "modality":
            self._tell(f"{per} '{getattr(origin, per)}'" if getattr(origin, per) else f"no {per} stated")
        return None

    def _tell(self, found: str) -> None:
        if found not in self._told:
            self._told.add(found)
            known = ", ".join(self.routes)
            text = f"{found}: the base model answers (there are adapters for {known})"
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def routed(self, backbone: Backbone, origin: Origin | str | None) -> Iterator[None]:
        """Inside the block the adapter for scans of `origin` is at work; where there is none, the base is.

        Outside of any block the base model answers. Nothing changes where one adapter serves all. Where
        tracers or sites choose, one without an adapter is told once on standard error.

        Raises:
            UserError: there are several adapters and nothing to choose by.
        """
        if not self.routes or self._off:
            yield
            return
        route = self.route(origin)
        before, learned = self._route, backbone.new_structures
        self._route = route
        self._select(backbone, route)
        # a structure learned for one route is unknown in another
        backbone.new_structures = self._learned if route else {}
        try:
            yield
        finally:
            self._route, backbone.new_structures = before, learned
            self._select(backbone, before)

    def merge(self, backbone: Backbone, route: str | None = None) -> None:
        """Fold the adapter into the base weights; what stays is the plain network.

        Args:
            backbone: carries the adapter.
            route: whose adapter, where there are several.

        Raises:
            UserError: there are several, and `route` names none of them.
        """
        if self.routes and route not in self.routes:
            raise UserError(
                f"one network cannot hold the adapters of several {self._several}",
                expected=f"one of {', '.join(self.routes)}",
            )
        trained, _ = self.parameters(backbone)
        self._merge(backbone, route)
        backbone.adapter = None
        if trained:
            # folded weights are another base: what is trained on them does not load onto the old ones
            backbone.state_sha256 = state_hash(backbone.net.state_dict())
        backbone.requires_grad_(False)

    def unload(self, backbone: Backbone) -> None:
        """Take the adapter out: the base model as it was, learned structures forgotten."""
        self._unload(backbone)
        backbone.adapter = None
        backbone.forget_structures()

    def save(self, folder: Path, backbone: Backbone, info: AdapterCard) -> None:
        """Write the adapter and its card into `folder`, whole or not at all."""
        info.write(folder, lambda temporary: self._write(temporary, backbone))

    @abstractmethod
    def _inject(self, backbone: Backbone, rows: list[int]) -> None: ...

    @abstractmethod
    def _disabled(self, backbone: Backbone) -> Any: ...

    @abstractmethod
    def _merge(self, backbone: Backbone, route: str | None = None) -> None: ...

    def _select(self, backbone: Backbone, route: str | None) -> None:
        raise NotImplementedError(f"adapter '{self.method}' knows no routes")

    @abstractmethod
    def _unload(self, backbone: Backbone) -> None: ...

    @abstractmethod
    def _write(self, folder: Path, backbone: Backbone) -> None: ...

    @abstractmethod
    def read(self, folder: Path, backbone: Backbone) -> None:
        """Load what `save` wrote into an injected backbone.

        Raises:
            UserError: files missing, damaged or of another network.
        """
