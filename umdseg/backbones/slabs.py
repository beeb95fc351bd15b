"""An output grid slab by slab, so that what is computed on it stays small."""

from __future__ import annotations

from collections.abc import Iterator

from umdseg.data.geometry import Grid

# numbers per slab
SLAB_NUMBERS = 1 << 26


def slabs(grid: Grid, channels: int) -> Iterator[tuple[slice, Grid]]:
    """(z slice, that part of the grid), for `channels` numbers per voxel."""
    step = max(SLAB_NUMBERS // (grid.shape[0] * grid.shape[1] * max(channels, 1)), 1)
    for start in range(0, grid.shape[2], step):
        stop = min(start + step, grid.shape[2])
        yield slice(start, stop), grid.slab(start, stop)
