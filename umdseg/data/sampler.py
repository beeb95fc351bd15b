"""Which patches an epoch holds, on every rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler


@dataclass(frozen=True)
class StepsDone:
    """How far training is.

    Attributes:
        steps: optimizer steps so far.
        per_step: items that one process feeds to one step (batch size times accumulated batches).
    """

    steps: int
    per_step: int

    def place(self, items: int) -> tuple[int, int]:
        """(epoch, items of it already used), where an epoch feeds `items` to each process.

        The last step of an epoch may be a smaller one.
        """
        steps_per_epoch = math.ceil(items / self.per_step)
        return self.steps // steps_per_epoch, self.steps % steps_per_epoch * self.per_step


class EpochSampler(DistributedSampler[int]):
    """Yields `epoch * length + i`, so that an index alone says which patch to draw.

    Item i of epoch e is the same patch whatever the number of workers or ranks; the ranks share an
    epoch without overlap. Being a DistributedSampler, Lightning leaves it in place.

    Args:
        dataset: what is drawn from.
        length: items of one epoch, over all ranks.
        done: asked at the start of each epoch how far training is; then epoch and first item follow
            from the number of steps alone, so that a run that was stopped amid an epoch goes on with
            the items it had not drawn yet. Where it answers None (a plain loop), `set_epoch` counts.
    """

    def __init__(
        self, dataset: Dataset[object], length: int, done: Callable[[], StepsDone | None] = lambda: None
    ) -> None:
        ranks = dist.get_world_size() if _distributed() else 1
        rank = dist.get_rank() if _distributed() else 0
        super().__init__(dataset, num_replicas=ranks, rank=rank, shuffle=False)
        self.length, self.done = length, done

    def __iter__(self) -> Iterator[int]:
        done = self.done()
        epoch, used = (self.epoch, 0) if done is None else done.place(len(self))
        return iter([epoch * self.length + i for i in list(super().__iter__())[used:]])


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
