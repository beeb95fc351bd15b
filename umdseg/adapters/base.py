"""The contract every adapter keeps: identity at start, base frozen, saved alone, removable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from umdseg.adapters.card import AdapterCard
from umdseg.backbones.base import Backbone


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
    """

    method: ClassVar[str]
    default_lr: ClassVar[float] = 2e-3
    Options: ClassVar[type[AdapterOptions]] = AdapterOptions

    def __init__(self, options: AdapterOptions) -> None:
        self.options = options
        self._base_parameters = 0

    def inject(self, backbone: Backbone, new_structures: Mapping[str, int] | None = None) -> None:
        """Put the adapter into the backbone; outputs stay what they were.

        The base is frozen; what the method trains, and the class rows of new structures, are not.

        Args:
            backbone: the plain model.
            new_structures: learned structure -> class row, from `backbone.add_structures`;
                None = all the backbone has been given.
        """
        if backbone.adapter is not None:
            raise ValueError(f"{backbone.card.name} already carries adapter '{backbone.adapter.method}'")
        rows = dict(backbone.new_structures if new_structures is None else new_structures)
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
        try:
            with self._disabled(backbone):
                yield
        finally:
            backbone.new_structures = learned

    def merge(self, backbone: Backbone) -> None:
        """Fold the adapter into the base weights; what stays is the plain network."""
        self._merge(backbone)
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
    def _merge(self, backbone: Backbone) -> None: ...

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
