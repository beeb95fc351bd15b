"""A scribble as a person would draw it through a structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from umdseg.data.geometry import Array
from umdseg.prompts.sections import Section
from umdseg.vocabulary import Contour

Pixel = tuple[int, int]


def scribble_inside(section: Section) -> Contour:
    """The longest way through the inner part of a section, along its middle.

    The inner part is what lies at least half as deep as its deepest pixel (Euclidean distance in millimetres
    to the outside) and hangs together with that. The line joins two pixels of it that are farthest apart
    (the farthest from the deepest, and the farthest from that, inside the part); on its way deep pixels cost
    less, so that it follows the medial axis. All its points are pixels of the section; a section of one
    pixel is dotted.

    Args:
        section: where.

    Returns:
        One open contour in the section's plane.
    """
    from skimage.graph import MCP_Geometric

    padded: Array = ndimage.distance_transform_edt(np.pad(section.mask, 1), sampling=section.spacing)
    depth = padded[1:-1, 1:-1]
    deepest = _pixel(depth)
    pieces, _ = ndimage.label(depth >= depth.max() / 2, np.ones((3, 3)))
    core = pieces == pieces[deepest]
    start = _farthest(core, section.spacing, deepest)
    stop = _farthest(core, section.spacing, start)
    costs = np.where(core, (depth.max() / np.maximum(depth, 1e-9)) ** 2, np.inf)
    ways = MCP_Geometric(costs, sampling=section.spacing)
    ways.find_costs([start], [stop])
    return Contour(section.to_world(np.array(ways.traceback(stop), dtype=np.float64)), closed=False)


def _farthest(core: NDArray[np.bool_], spacing: tuple[float, float], start: Pixel) -> Pixel:
    """The pixel of a part that is farthest from another one, on ways inside it."""
    from skimage.graph import MCP_Geometric

    lengths, _ = MCP_Geometric(np.where(core, 1.0, np.inf), sampling=spacing).find_costs([start])
    return _pixel(np.where(core, lengths, -1.0))


def _pixel(values: Array) -> Pixel:
    """The first of the highest values."""
    row, column = np.unravel_index(int(np.argmax(values)), values.shape)
    return int(row), int(column)
