"""Rows of a table of embeddings that train while the other rows cannot move.

Freezing by gradient would not do: weight decay moves every row of a parameter. So the rows are tensors of
their own, put into the table whenever somebody reads it (a parametrization of torch): code that looks up
entries and code that takes `table.weight` see the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from umdseg.adapters.own import Piece
from umdseg.backbones.base import Backbone


class Value(nn.Module):
    """One tensor to train."""

    def __init__(self, start: torch.Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(start.detach().clone())


class Parametrized(Piece):
    """Stands between a tensor of the network and whoever reads it.

    Args:
        owners: (module, name) of every place the tensor hangs at.
        starts: first value of each set.
    """

    def __init__(self, owners: Sequence[tuple[nn.Module, str]], starts: Sequence[torch.Tensor]) -> None:
        super().__init__([Value(start) for start in starts])
        # in a tuple, so that the owners are not registered below their own child
        self._owners = tuple(owners)

    def attach(self) -> None:
        """Register at every owner."""
        for module, name in self._owners:
            parametrize.register_parametrization(module, name, self)

    def detach(self) -> None:
        """Give every owner its own tensors back, the very same, with what other pieces did to them."""
        for module, _ in self._owners:
            if parametrize.is_parametrized(module):
                _restore(module)

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The tensor itself, and what is read in its place."""
        module, name = self._owners[0]
        found = cast(Any, module).parametrizations[name]
        return found.original, getattr(module, name).detach().clone()

    def own(self) -> torch.Tensor | None:
        """The tensor of the set at work."""
        if self.active is None:
            return None
        return self.sets[self.active].get_parameter("value")


class Rows(Parametrized):
    """Some rows of a table, replaced by own ones (`added` = False) or with own ones added to them.

    Args:
        table: the embedding.
        rows: their numbers.
        count: sets.
        added: own rows start at zero and are added: rows without gradient stay bit for bit, and weight
            decay pulls the others to the base's. Otherwise they start as the table has them and replace it.
    """

    def __init__(self, table: nn.Module, rows: Sequence[int], count: int, added: bool = False) -> None:
        weight = table.get_parameter("weight")
        index = torch.tensor(list(rows), device=weight.device)
        start = torch.zeros_like(weight[index]) if added else weight[index]
        super().__init__([(table, "weight")], [start] * count)
        self.added = added
        # moved between devices with the table, saved nowhere
        self.register_buffer("index", index, persistent=False)

    def forward(self, table: torch.Tensor) -> torch.Tensor:
        """(N, D) table -> the same with the own rows in it."""
        own, index = self.own(), self.get_buffer("index")
        if own is None:
            return table
        return table.index_add(0, index, own) if self.added else table.index_copy(0, index, own)


def _restore(module: nn.Module) -> None:
    # torch's own removal takes the properties off the class, which copies of the module share
    given = cast(Any, module)
    lists = given.parametrizations
    given.__class__ = parametrize.type_before_parametrizations(module)
    del given.parametrizations
    for name, found in lists.items():
        module.register_parameter(name, found.original)


def new_rows(backbone: Backbone, rows: Sequence[int], count: int) -> Mapping[str, Piece]:
    """`count` sets of own class rows of learned structures, which start as the table has them."""
    if not rows:
        return {}
    name = backbone.card.class_rows
    return {f"{name}.rows": Rows(backbone.net.get_submodule(name), rows, count)}
