"""How much of a window the scans fill: what lies beyond them is computed for nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from umdseg.backbones.card import Card
from umdseg.data.geometry import Grid, canonical_grid
from umdseg.preflight.check import Check

# a window that the median scan fills less than this is worth a word
_EMPTY = 0.5


def window(card: Card, grids: Sequence[Grid]) -> Check:
    """The window the model works on, and the one that would do.

    Args:
        card: of the model as the run builds it.
        grids: of the scans it is trained on, or scores; before air is cropped off.
    """
    told = f"{_size(card.window)} voxels{', the only one it takes' if card.fixed_window else ''}"
    if not grids or card.slicewise:
        return Check("window", told)
    shapes = [canonical_grid(grid, card.spacing, card.orientation).shape for grid in grids]
    whole = math.prod(card.window)
    filled = median(math.prod(map(min, shape, card.window)) / whole for shape in shapes)
    told = f"{told}; the median scan fills {filled:.0%} of it"
    if filled >= _EMPTY or card.fixed_window:
        return Check("window", told)
    most = [max(edge) for edge in zip(*shapes, strict=True)]
    enough = [
        min(math.ceil(n / card.divisor) * card.divisor, w) for n, w in zip(most, card.window, strict=True)
    ]
    if math.prod(enough) == whole:
        return Check("window", told)
    return Check("window", f"{told}; model.window=[{','.join(map(str, enough))}] holds every scan")


def _size(edges: Sequence[int]) -> str:
    return " x ".join(map(str, edges))
