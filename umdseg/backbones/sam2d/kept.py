"""Embeddings of slices, kept as far as a memory bound allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch

Maps = list[torch.Tensor]


class Kept:
    """What was made last; the longest unused goes first.

    Args:
        limit: bytes; the newest is kept in any case.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._maps: OrderedDict[Hashable, Maps] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Maps]) -> Maps:
        """The tensors under `key`, made where there are none."""
        if key not in self._maps:
            self._maps[key] = make()
            self._used += _bytes(self._maps[key])
        self._maps.move_to_end(key)
        while self._used > self._limit and len(self._maps) > 1:
            self._used -= _bytes(self._maps.popitem(last=False)[1])
        return self._maps[key]


def _bytes(maps: Maps) -> int:
    return sum(one.numel() * one.element_size() for one in maps)
