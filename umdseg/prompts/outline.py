"""A lasso as a person would draw it around a structure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from umdseg.data.geometry import Array
from umdseg.prompts.sections import Section
from umdseg.vocabulary import Contour

# parts per pixel in which distances are measured
FINE = 4
# waves of a shaky hand once around
WAVES = np.arange(4)


def lasso_around(section: Section, margin_mm: float, jitter_mm: float, rng: np.random.Generator) -> Contour:
    """The outer line of a section, faces of its outermost pixels included; holes are surrounded too.

    Args:
        section: where.
        margin_mm: how far outside the section's edge the line runs.
        jitter_mm: by how much the line wanders from there at most, to and fro in slow waves; by no more than
            half of what is inside it at the section's deepest place, so that a lasso remains.
        rng: decides everything.

    Returns:
        One closed contour in the section's plane.
    """
    from skimage import measure

    # its functions have no types
    polygons: Any = measure
    reach = np.ceil((margin_mm + jitter_mm) / np.array(section.spacing)).astype(int) + 2
    filled = np.pad(ndimage.binary_fill_holes(section.mask), [(int(n), int(n)) for n in reach])
    distance = _distance(filled.repeat(FINE, axis=0).repeat(FINE, axis=1), section.spacing)
    most = min(jitter_mm, (margin_mm - float(distance.min())) / 2)
    level = margin_mm + most * _waves(distance, section.spacing, rng)
    # what touches at corners only hangs together, as it does in the section
    lines = polygons.find_contours(level - distance, 0.0, fully_connected="high")
    # a tenth of a pixel is nothing a hand can do
    line = polygons.approximate_polygon(max(lines, key=_area), tolerance=FINE / 10)[:-1]
    return Contour(section.to_world((line + 0.5) / FINE - 0.5 - reach))


def _distance(fine: NDArray[np.bool_], spacing: tuple[float, float]) -> Array:
    """Millimetres to the edge of a mask in parts of pixels, negative inside."""
    edges = (spacing[0] / FINE, spacing[1] / FINE)
    # distances are between centres; the edge lies half a part from them
    half = sum(edges) / 4
    outside: Array = ndimage.distance_transform_edt(~fine, sampling=edges)
    inside: Array = ndimage.distance_transform_edt(fine, sampling=edges)
    return np.where(fine, half - inside, outside - half)


def _waves(distance: Array, spacing: tuple[float, float], rng: np.random.Generator) -> Array:
    """Smooth numbers from -1 to 1 by direction from the middle of what is inside."""
    size, phase = rng.uniform(-1, 1, len(WAVES)), rng.uniform(0, 2 * np.pi, len(WAVES))
    middle = np.argwhere(distance < 0).mean(axis=0)
    rows, columns = (np.arange(n) - m for n, m in zip(distance.shape, middle, strict=True))
    angle = np.arctan2(columns[None, :] * spacing[1], rows[:, None] * spacing[0])
    waves = [s * np.cos(n * angle + p) for n, s, p in zip(WAVES, size, phase, strict=True)]
    total: Array = np.sum(waves, axis=0) / np.abs(size).sum()
    return total


def _area(line: Array) -> float:
    (x, y), (u, v) = line[:-1].T, line[1:].T
    return float(abs((x * v - u * y).sum()) / 2)
