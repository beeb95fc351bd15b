"""Transformer blocks, found from the layers of their attention that a card names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import nn

from umdseg.adapters.layers import Layer


@dataclass(frozen=True)
class Block:
    """One transformer block.

    Attributes:
        name: of the module.
        module: attention, MLP and what is between; gives (..., width).
        mlp: its MLP, which takes and gives (..., width).
        out: last linear layer of its attention and that layer's name; None where none was named.
        width: features.
    """

    name: str
    module: nn.Module
    mlp: nn.Module
    out: tuple[str, nn.Linear] | None
    width: int


def blocks(net: nn.Module, found: Sequence[Layer]) -> tuple[list[Block], list[Layer]]:
    """The transformer blocks that layers lie in, in network order, and the layers that lie in none.

    A block is the innermost module around a linear layer that has a child `mlp` and one whose name has `att`
    in it; so all networks here call them.
    """
    names: dict[str, list[Layer]] = {}
    rest = []
    for layer in found:
        name = _around(net, layer.name) if isinstance(layer.module, nn.Linear) else None
        if name is None:
            rest.append(layer)
        else:
            names.setdefault(name, []).append(layer)
    return [_block(net, name, inside) for name, inside in names.items()], rest


def _around(net: nn.Module, name: str) -> str | None:
    while name:
        name = name.rpartition(".")[0]
        children = net.get_submodule(name)._modules
        if "mlp" in children and any("att" in child for child in children):
            return name
    return None


def _block(net: nn.Module, name: str, inside: Sequence[Layer]) -> Block:
    module = net.get_submodule(name)
    mlp = module.get_submodule("mlp")
    first = next(part for part in mlp.modules() if isinstance(part, nn.Linear))
    width = first.in_features
    outs = [
        (layer.name, layer.module)
        for layer in inside
        if not layer.name.startswith(f"{name}.mlp.") and cast(nn.Linear, layer.module).out_features == width
    ]
    out = cast(tuple[str, nn.Linear], outs[-1]) if outs else None
    return Block(name, module, mlp, out, width)
