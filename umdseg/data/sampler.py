"""Which patches an epoch holds, on every rank."""

from __future__ import annotations

from collections.abc import Iterator

import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler


class EpochSampler(DistributedSampler[int]):
    """Yields `epoch * length + i`, so that an index alone says which patch to draw.

    Item i of epoch e is the same patch whatever the number of workers or ranks; the ranks share an
    epoch without overlap. Being a DistributedSampler, Lightning leaves it in place and calls
    `set_epoch` on it, in one process as in many. In a plain loop call `set_epoch` before each epoch.
    """

    def __init__(self, dataset: Dataset[object], length: int) -> None:
        ranks = dist.get_world_size() if _distributed() else 1
        rank = dist.get_rank() if _distributed() else 0
        super().__init__(dataset, num_replicas=ranks, rank=rank, shuffle=False)
        self.length = length

    def __iter__(self) -> Iterator[int]:
        return iter([self.epoch * self.length + i for i in super().__iter__()])


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
