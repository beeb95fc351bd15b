"""Outline of the body: skin, subcutaneous fat, muscle wall, thoracic and abdominal cavities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umdseg.data.phantom.shapes import Canvas, Floats, ellipsoid
from umdseg.data.phantom.tissues import TISSUES
from umdseg.data.phantom.vary import Vary

# height (mm), half width, half depth, centre y of the trunk's cross-section
_TRUNK = np.array(
    [
        (-480, 168, 100, -5),
        (-400, 172, 104, -5),
        (-330, 174, 106, -5),
        (-250, 162, 100, 0),
        (-160, 152, 98, 2),
        (-60, 160, 108, 2),
        (40, 166, 110, 2),
        (130, 170, 104, 0),
        (190, 176, 88, -6),
        (222, 165, 72, -10),
        (245, 92, 62, -10),
        (268, 64, 60, -12),
        (352, 60, 60, -14),
    ]
)
_POWER = np.float32(2.5)
_HEIGHTS = np.arange(_TRUNK[0, 0], _TRUNK[-1, 0] + 1)
_COLUMNS = [_HEIGHTS, *(np.interp(_HEIGHTS, _TRUNK[:, 0], c) for c in _TRUNK[:, 1:].T)]
_TABLE = np.stack(_COLUMNS, axis=1).astype(np.float32)
WALL = 20.0  # muscle and ribs between fat and cavity, millimetres


def trunk_level(position: Floats, inset: float = 0.0) -> Floats:
    """Cross-section function of the trunk: < 1 inside an outline `inset` mm below the skin."""
    x, y, z = position
    # a table in steps of 1 mm is much faster than interpolating millions of heights
    row = np.clip(z - _TABLE[0, 0], 0, len(_TABLE) - 1).astype(np.int32)
    a = np.maximum(_TABLE[row, 1] - np.float32(inset), 1)
    b = np.maximum(_TABLE[row, 2] - np.float32(inset), 1)
    u, v = np.abs(x) / a, np.abs(y - _TABLE[row, 3]) / b
    level = np.power(np.power(u, _POWER) + np.power(v, _POWER), 1 / _POWER)
    return np.where(z > _TRUNK[-1, 0], np.float32(9), level).astype(np.float32)


def trunk_radius(
    z: NDArray[np.float64], inset: float, angles: int, width: NDArray[np.float64], depth: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance (N, angles) in mm from the axis x = y = 0 to an outline `inset` mm below the skin.

    Args:
        z: (N,) template heights.
        inset: depth below the skin, millimetres.
        angles: number of directions, counter-clockwise from +x.
        width: (N,) stretch of the trunk along x.
        depth: (N,) stretch along y.
    """
    heights = np.clip(z, _TRUNK[0, 0], _TRUNK[-1, 0])
    a, b, c = (np.interp(heights, _TRUNK[:, 0], column)[:, None] for column in _TRUNK[:, 1:].T)
    a, b, c = (a - inset) * width[:, None], (b - inset) * depth[:, None], c * depth[:, None]
    angle = np.arange(angles) * 2 * np.pi / angles
    radius = np.full((len(z), angles), 100.0)
    for _ in range(8):
        x, y = np.abs(radius * np.cos(angle)) / a, np.abs(radius * np.sin(angle) - c) / b
        radius /= (x**_POWER + y**_POWER) ** (1 / _POWER)
    return radius


def paint_body(canvas: Canvas, vary: Vary) -> None:
    """Paint trunk, legs and head as skin, fat and muscle, and the two cavities."""
    position = canvas.position
    whole = (slice(None), slice(None), slice(None))
    fat, z = vary.habitus.fat, position[2]
    ripple = 0.02 * canvas.wobble[0]
    for name, inset in (("skin", 0.0), ("fat", 2.5), ("muscle", 2.5 + fat)):
        inside = trunk_level(position, inset) < 1 + (ripple if name == "muscle" else 0)
        if name != "skin":
            inside &= z < 285 if name == "fat" else z < 352
        canvas.paint(TISSUES[name].code, whole, _legs_split(position, inside, inset))
    paint_head(canvas)
    cavity = trunk_level(position, 2.5 + fat + WALL) < 1 + ripple
    _fill(canvas, "soft", cavity & (z >= 0) & (z < 215))
    _fill(canvas, "visceral_fat", cavity & (z < 0) & (z > -385) & (np.abs(position[0]) < 118))
    _bowel_loops(canvas, vary)


def _legs_split(position: Floats, inside: np.ndarray, inset: float) -> np.ndarray:
    """Below the crotch the trunk becomes two thighs."""
    x, y, z = position
    thigh = np.hypot((np.abs(x) - 88) / (80 - inset), (y + 5) / (88 - inset)) < 1
    return np.where(z < -400, thigh, inside)


def _fill(canvas: Canvas, tissue: str, inside: np.ndarray) -> None:
    canvas.paint(TISSUES[tissue].code, (slice(None), slice(None), slice(None)), inside)


def paint_head(canvas: Canvas) -> None:
    """Scalp, face and its cavities; the skull comes later."""
    code = {name: TISSUES[name].code for name in ("skin", "fat", "muscle", "soft", "airway")}
    ellipsoid(canvas, code["skin"], (0, -2, 428), (85, 101, 84), rough=0.01)
    ellipsoid(canvas, code["skin"], (0, 34, 372), (66, 66, 72), rough=0.01)
    ellipsoid(canvas, code["fat"], (0, -2, 428), (82, 98, 81), rough=0.01)
    ellipsoid(canvas, code["soft"], (0, 32, 370), (62, 62, 68), rough=0.02)
    for side in (-1, 1):
        ellipsoid(canvas, code["airway"], (side * 22, 62, 378), (11, 14, 15), rough=0.08)
    ellipsoid(canvas, code["airway"], (0, 40, 352), (9, 26, 14), rough=0.08)


def _bowel_loops(canvas: Canvas, vary: Vary) -> None:
    """Small bowel: loops scattered in the middle abdomen, the rest of the cavity stays fat."""
    rng = vary.rng("bowel")
    code, gas, fat = TISSUES["bowel"].code, TISSUES["bowel_gas"].code, TISSUES["visceral_fat"].code
    for _ in range(int(75 * (1.3 - vary.habitus.visceral))):
        centre = rng.uniform((-82, -8, -320), (82, 62, -155))
        radii = rng.uniform((14, 11, 11), (30, 17, 17))
        ellipsoid(canvas, code, centre, radii, angles=rng.uniform(-60, 60, 3), rough=0.08, over=[fat])
        if rng.random() < 0.25:
            ellipsoid(canvas, gas, centre + np.array([0, 6, 0]), radii * 0.4, rough=0.05, over=[code])
