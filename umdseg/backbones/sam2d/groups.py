"""Which slices of a stack are encoded together, where something in the encoder looks across slices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Consecutive slices that are encoded together.

    Attributes:
        start: first slice.
        stop: one beyond the last.
        first: first slice whose embedding is taken from this group.
        last: one beyond the last of those.
    """

    start: int
    stop: int
    first: int
    last: int


class Groups:
    """The grouping of stacks of slices; without an adapter that looks across them every slice stands alone.

    Groups have `slices` slices each, as training patches do, and overlap; of two that hold a slice the one
    counts in which it lies further inside. So an embedding depends on the slice's number and the number of
    slices in the stack, not on what is encoded first, kept or forgotten.

    Attributes:
        slices: of a group.
        margin: slices at both ends of a group whose embeddings the neighbouring group gives.
        together: whether anything looks across slices at the moment.
        consecutive: slices of one stack that follow each other in the batch that is being encoded.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Every slice by itself."""
        self.slices, self.margin, self.together, self.consecutive = 1, 0, False, 1

    def of(self, count: int) -> list[Group]:
        """The groups of a stack of `count` slices, in order."""
        if count <= self.slices:
            return [Group(0, count, 0, count)]
        step = self.slices - 2 * self.margin
        last = -(-(count - self.slices) // step)
        found = []
        for number in range(last + 1):
            start = min(number * step, count - self.slices)
            first = number * step + self.margin if number else 0
            end = (number + 1) * step + self.margin if number < last else count
            found.append(Group(start, start + self.slices, first, end))
        return found

    @contextmanager
    def encoding(self, slices: int) -> Iterator[None]:
        """Inside the block batches hold stacks of so many slices, one stack after the other."""
        before, self.consecutive = self.consecutive, slices
        try:
            yield
        finally:
            self.consecutive = before
