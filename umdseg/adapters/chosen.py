"""Tensors of the network itself that train: what is learned is added to them, so the base's values stay."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from umdseg.adapters.base import RoutedOptions
from umdseg.adapters.layers import compiled, layers
from umdseg.adapters.own import OwnAdapter, Piece
from umdseg.adapters.rows import Parametrized
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError


class Delta(Parametrized):
    """A tensor of the network plus an own one that starts at zero.

    So weight decay pulls to the base's value, not to zero, and a tensor without gradient does not move.

    Args:
        owners: (module, name) of every place the tensor hangs at.
        count: sets.
    """

    def __init__(self, owners: Sequence[tuple[nn.Module, str]], count: int) -> None:
        module, name = owners[0]
        super().__init__(owners, [torch.zeros_like(module.get_parameter(name))] * count)

    def forward(self, base: torch.Tensor) -> torch.Tensor:
        """The base's tensor, moved by the set at work."""
        own = self.own()
        return base if own is None else base + own


@dataclass
class ChosenOptions(RoutedOptions):
    """Options of adapters that train tensors of the network.

    Attributes:
        targets: regular expression of names of modules, whose tensors train; None = the method's own choice.
    """

    targets: str | None = None


class ChosenAdapter(OwnAdapter):
    """Trains the tensors a rule chooses."""

    @abstractmethod
    def chosen(self, backbone: Backbone) -> Sequence[str]:
        """Names of parameters of `backbone.net`."""

    def pieces(self, backbone: Backbone, count: int) -> Mapping[str, Piece]:
        """A `Delta` per tensor, however many modules share it.

        Raises:
            UserError: there is nothing to train.
        """
        owned = owners(backbone.net)
        return {name: Delta(owned[name], count) for name in self.chosen(backbone)}

    def nothing(self, backbone: Backbone, what: str, expected: str) -> UserError:
        """The error that there is nothing of the kind."""
        targets = getattr(self.options, "targets", None)
        within = f" in modules named '{targets}'" if targets else ""
        return UserError(
            f"adapter '{self.method}': model {backbone.card.name} has no {what}{within}",
            where="adapter.targets" if targets else "adapter",
            expected=expected,
        )


def owners(net: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """First name of every parameter -> (module, name) of every place it hangs at, each module once."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in net.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((module, name))
    return {name: places[id(parameter)] for name, parameter in net.named_parameters()}


def within(net: nn.Module, pattern: str, where: str = "adapter.targets") -> list[str]:
    """Names of all parameters of the modules that a regular expression names in full, in network order.

    Raises:
        UserError: the pattern is no regular expression.
    """
    chosen = compiled(pattern, where)
    inside = {
        id(parameter)
        for layer in layers(net)
        if any(chosen.fullmatch(name) for name in layer.names)
        for parameter in layer.module.parameters()
    }
    return [name for name, parameter in net.named_parameters() if id(parameter) in inside]
