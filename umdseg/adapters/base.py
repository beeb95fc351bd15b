"""The contract every adapter keeps: identity at start, base frozen, saved alone, removable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from umdseg.adapters.card import AdapterCard
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError


@dataclass
class AdapterOptions:
    """Options every adapter takes.

    Attributes:
        name: registered name.
        path: folder of a saved adapter; then method, structures and class rows come from its card.
    """

    name: str = "none"
    path: str | None = None


class Adapter(ABC):
    """One way of adapting a backbone.

    Attributes:
        method: registered name.
        Options: its option dataclass.
        default_lr: peak learning rate where the user gives none.
        routes: what chooses among several adapters of one kind (modalities); empty = there is one.
    """

    method: ClassVar[str]
    default_lr: ClassVar[float] = 2e-3
    Options: ClassVar[type[AdapterOptions]] = AdapterOptions

    def __init__(self, options: AdapterOptions) -> None:
        self.options = options
        self.routes: tuple[str, ...] = ()
        self._route: str | None = None
        self._off = False
        self._base_parameters = 0

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
            routes: modalities that get an adapter each; empty = one adapter for all.

        Raises:
            UserError: the options do not fit the backbone.
        """
        if backbone.adapter is not None:
            raise ValueError(f"{backbone.card.name} already carries adapter '{backbone.adapter.method}'")
        self.routes = tuple(routes)
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

    @contextmanager
    def routed(self, backbone: Backbone, modality: str | None) -> Iterator[None]:
        """Inside the block the adapter of `modality` is at work; where it has none, the base model is.

        Outside of any block the base model answers. Nothing changes where one adapter serves all
        modalities, or inside `disable`.

        Raises:
            UserError: there are several adapters and no modality to choose by.
        """
        if not self.routes or self._off:
            yield
            return
        if modality is None:
            raise UserError(
                "the model has one adapter per modality, and the image's is not known",
                expected=f"modality={'|'.join(self.routes)}, or another for the base model",
            )
        before, learned = self._route, backbone.new_structures
        self._route = modality
        self._select(backbone, modality if modality in self.routes else None)
        # a structure learned for one modality is unknown in another
        backbone.new_structures = self._learned if modality in self.routes else {}
        try:
            yield
        finally:
            self._route, backbone.new_structures = before, learned
            self._select(backbone, before if before in self.routes else None)

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
                "one network cannot hold the adapters of several modalities",
                expected=f"one of {', '.join(self.routes)}",
            )
        self._merge(backbone, route)
        backbone.adapter = None
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
