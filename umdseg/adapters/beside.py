"""Own modules beside frozen layers: what they say is added to what the layer says.

The layer itself stays where and what it is; the branch hangs below it as its child `beside` and joins in by a
forward hook. So code that reads a layer's `weight`, and networks that reach one layer under several names
(nnU-Net), need nothing, and taking the adapter out restores the very same modules.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from umdseg.adapters.base import RoutedOptions
from umdseg.adapters.own import OwnAdapter, Piece
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError

NAME = "beside"
# these run or count their children: a further one would change what they do
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Beside(Piece):
    """Branches beside one layer: layer(x) + scale * branch(x), or + scale * branch(layer(x)).

    Args:
        layer: any module that takes and gives one tensor.
        branches: one per route, each giving a tensor of the layer's output shape.
        scale: of what the branches give.
        after: branches take the layer's output instead of its input.

    Raises:
        UserError: the layer is a mere container of others.
    """

    def __init__(
        self, layer: nn.Module, branches: list[nn.Module], scale: float = 1.0, after: bool = False
    ) -> None:
        super().__init__(branches)
        if isinstance(layer, _CONTAINERS) or NAME in layer._modules:
            raise UserError(
                f"nothing can be put beside a {type(layer).__name__}",
                where="adapter.targets",
                expected="a regular expression of the names of single layers",
            )
        # in a tuple, so that the layer is not registered below its own child
        self._layer, self._handle = (layer,), cast(RemovableHandle | None, None)
        self.scale, self.after = scale, after

    def attach(self) -> None:
        """Hang below the layer and hook into its forward pass."""
        (layer,) = self._layer
        layer.add_module(NAME, self)
        self._handle = layer.register_forward_hook(self._join, with_kwargs=True)

    def detach(self) -> None:
        """Unhook."""
        (layer,) = self._layer
        if self._handle is not None:
            self._handle.remove()
            del layer._modules[NAME]
        self._handle = None

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's weight, and with the branch's `update()` (of the same shape) added."""
        weight = self._layer[0].get_parameter("weight")
        if self.active is None:
            return weight, weight
        return weight, weight + self.scale * cast(Any, self.sets[self.active]).update()

    def _join(self, layer: nn.Module, args: Any, kwargs: Any, output: torch.Tensor) -> torch.Tensor | None:
        del layer
        if self.active is None:
            return None
        given = output if self.after else (*args, *kwargs.values())[0]
        added: torch.Tensor = self.sets[self.active](given)
        return output + self.scale * added


@dataclass
class BesideOptions(RoutedOptions):
    """Options of adapters beside layers.

    Attributes:
        targets: regular expression of module names; None = the card's.
    """

    targets: str | None = None


class BesideAdapter(OwnAdapter):
    """Branches beside the layers a pattern names."""

    @abstractmethod
    def places(self, backbone: Backbone) -> Mapping[str, Place]:
        """Name -> where a branch goes and how it is made.

        Raises:
            UserError: the pattern names nothing that fits.
        """

    def pieces(self, backbone: Backbone, count: int) -> Mapping[str, Piece]:
        """A `Beside` per place, on the layer's device."""
        return {name: place.beside(count) for name, place in self.places(backbone).items()}


@dataclass(frozen=True)
class Place:
    """Where a branch goes.

    Attributes:
        layer: the frozen module.
        make: makes one branch.
        scale: of what it gives.
        after: it takes the layer's output instead of its input.
    """

    layer: nn.Module
    make: Callable[[], nn.Module]
    scale: float = 1.0
    after: bool = False

    def beside(self, count: int) -> Beside:
        """`count` branches beside the layer, of its device and number type."""
        like = next(self.layer.parameters())
        branches = [self.make().to(like.device, like.dtype) for _ in range(count)]
        return Beside(self.layer, branches, self.scale, self.after)
