"""What the adapters that do not go through peft share: own tensors at places of the network, set by set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from umdseg.adapters.base import Adapter, AdapterOptions, RoutedOptions
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError

WEIGHTS = "adapter.safetensors"


class Piece(nn.Module, ABC):
    """The own tensors of one place, one set per route; one set is at work, or none (the base answers).

    Attributes:
        sets: one module per route.
        active: number of the set at work, None = none.
    """

    active: int | None

    def __init__(self, sets: list[nn.Module]) -> None:
        super().__init__()
        self.sets = nn.ModuleList(sets)
        self.active = None

    @abstractmethod
    def attach(self) -> None:
        """Take the place in the network; with no set at work nothing changes."""

    @abstractmethod
    def detach(self) -> None:
        """Leave the network as it was before `attach`."""

    @abstractmethod
    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A tensor of the base, and its value with what the set at work does folded in."""


class OwnAdapter(Adapter):
    """An adapter made of pieces; the base's modules and tensors stay the objects they are.

    Attributes:
        why_not_merged: why it cannot be folded into the base's weights; empty where it can.
    """

    Options: ClassVar[type[AdapterOptions]] = RoutedOptions
    why_not_merged: ClassVar[str] = ""

    @abstractmethod
    def pieces(self, backbone: Backbone, count: int) -> Mapping[str, Piece]:
        """Place -> piece of `count` sets each; nothing is attached yet.

        Raises:
            UserError: the options do not fit the backbone.
        """

    def _inject(self, backbone: Backbone, rows: list[int]) -> None:
        from umdseg.adapters.rows import new_rows

        count = len(self.routes) or 1
        backbone.requires_grad_(False)
        self._pieces = {**self.pieces(backbone, count), **new_rows(backbone, rows, count)}
        for piece in self._pieces.values():
            piece.attach()
        self._at_work: str | None = None
        # of several adapters nobody has said yet which
        self._select(backbone, None if self.routes else "")

    def _select(self, backbone: Backbone, route: str | None) -> None:
        self._at_work = route
        number = None if route is None else self._names.index(route)
        for piece in self._pieces.values():
            piece.active = number

    @contextmanager
    def _disabled(self, backbone: Backbone) -> Iterator[None]:
        before = self._at_work
        self._select(backbone, None)
        try:
            yield
        finally:
            self._select(backbone, before)

    @torch.no_grad()
    def _merge(self, backbone: Backbone, route: str | None = None) -> None:
        if self.why_not_merged:
            raise UserError(
                f"adapter '{self.method}' cannot be folded into the weights: {self.why_not_merged}",
                expected="the model together with its adapter (adapter.path), or lora, lora_conv or dora",
            )
        self._select(backbone, route or "")
        folded = [piece.folded() for piece in self._pieces.values()]
        for piece in self._pieces.values():
            piece.detach()
        for tensor, value in folded:
            tensor.copy_(value)

    def _unload(self, backbone: Backbone) -> None:
        for piece in self._pieces.values():
            piece.detach()

    def _write(self, folder: Path, backbone: Backbone) -> None:
        from safetensors.torch import save_file

        for number, name in enumerate(self._names):
            (folder / name).mkdir(exist_ok=True)
            state = {key: p.detach().to("cpu").contiguous() for key, p in self._tensors(number).items()}
            save_file(state, folder / name / WEIGHTS, metadata={"format": "pt"})

    @torch.no_grad()
    def read(self, folder: Path, backbone: Backbone) -> None:
        """Load `adapter.safetensors`, one per route, refusing anything but exactly this adapter's tensors."""
        from umdseg.backbones.weights import check_fit, read_state

        found = []
        for number, name in enumerate(self._names):
            path, own = Path(folder) / name / WEIGHTS, self._tensors(number)
            state = read_state(path, own)
            check_fit(own, state, where=path, what=f"adapter '{self.method}'")
            found.append((own, state))
        for own, state in found:
            for key, parameter in own.items():
                parameter.copy_(state[key])

    @property
    def _names(self) -> tuple[str, ...]:
        # one adapter for all is saved without a folder of its own
        return self.routes or ("",)

    def _tensors(self, number: int) -> dict[str, nn.Parameter]:
        """The own tensors of one route: place and name -> tensor."""
        return {
            f"{place}.{key}": parameter
            for place, piece in self._pieces.items()
            for key, parameter in piece.sets[number].named_parameters()
        }
