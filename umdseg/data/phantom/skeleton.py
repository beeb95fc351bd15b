"""Bones: spine, ribs, sternum, pelvis, femora, skull."""

from __future__ import annotations

import numpy as np

from umdseg.data.phantom.shapes import Canvas, Floats, ellipsoid, tube
from umdseg.data.phantom.tissues import TISSUES
from umdseg.data.phantom.torso import WALL, trunk_level
from umdseg.data.phantom.vary import Vary

SPINE = (
    (0, -62, -310), (0, -52, -230), (0, -50, -150), (0, -60, -40),
    (0, -68, 80), (0, -56, 200), (0, -34, 270), (0, -26, 345),
)  # fmt: skip


def paint_skeleton(canvas: Canvas, vary: Vary) -> None:
    """Paint all bones; the brain is painted into the skull afterwards."""
    spongy, cortical = TISSUES["spongy_bone"].code, TISSUES["cortical_bone"].code
    _ribs(canvas, vary, cortical)
    widths = (24, 24, 23, 20, 18, 16, 14, 13)
    for code, shrink in ((cortical, 0.0), (spongy, 2.5)):
        tube(canvas, code, SPINE, [w - shrink for w in widths])
    paint_discs(canvas)
    paint_posterior_elements(canvas, cortical)
    tube(canvas, spongy, ((0, 88, 20), (0, 84, 100), (0, 70, 168)), 9)
    _pelvis(canvas, cortical, spongy)
    ellipsoid(canvas, cortical, (0, -2, 430), (77, 92, 75), rough=0.01)


def paint_discs(canvas: Canvas) -> None:
    """Discs between the vertebral bodies that are there."""
    z = canvas.position[2]
    bone = [TISSUES["spongy_bone"].code, TISSUES["cortical_bone"].code]
    column = (np.abs(canvas.position[0]) < 26) & (canvas.position[1] < -20) & (z > -300) & (z < 330)
    # vertebral height grows from neck to lumbar spine
    period = np.interp(z, [-300, 330], [36, 18])
    disc = column & (np.mod(z, period) < 0.2 * period)
    canvas.paint(TISSUES["soft"].code, (slice(None),) * 3, disc, over=bone)


def paint_posterior_elements(canvas: Canvas, code: int) -> None:
    """Spinous processes, and the canal in front of them."""
    for z in np.arange(-280, 260, 30.0):
        y = np.interp(z, [k[2] for k in SPINE], [k[1] for k in SPINE])
        ellipsoid(canvas, code, (0, y - 36, z), (6, 18, 8), rough=0.05)
        ellipsoid(canvas, TISSUES["soft"].code, (0, y - 22, z), (8, 7, 16), rough=0.02)


def _ribs(canvas: Canvas, vary: Vary, code: int) -> None:
    x, y, z = canvas.position
    inset = 2.5 + vary.habitus.fat + 0.55 * WALL
    near = np.abs(trunk_level(canvas.position, inset) - 1) < 0.045
    # ribs fall towards the front
    height = z + 0.35 * (y + 60) + 0.1 * np.abs(x)
    stripe = np.mod(height, 24.0) < 9.0
    cage = (height > -90) & (height < 215) & ((y < 50) | (np.abs(x) > 25))
    canvas.paint(code, (slice(None), slice(None), slice(None)), near & stripe & cage)


def _pelvis(canvas: Canvas, cortical: int, spongy: int) -> None:
    def behind(p: Floats) -> np.ndarray:
        return np.asarray((p[1] < 25) & (p[2] < -205))

    for side in (-1, 1):
        wing = (side * 82, -22, -262)
        ellipsoid(canvas, cortical, wing, (44, 46, 58), angles=(0, side * 16, side * 20), keep=behind)
        ellipsoid(
            canvas, TISSUES["muscle"].code, (side * 72, -4, -258), (41, 46, 54), angles=(0, side * 16, 0)
        )
        ellipsoid(canvas, spongy, (side * 66, -12, -352), (22, 34, 26), rough=0.06)
        ellipsoid(canvas, cortical, (side * 92, -6, -350), (24, 24, 24), rough=0.03)
        ellipsoid(canvas, spongy, (side * 92, -6, -350), (21, 21, 21), rough=0.03)
        tube(canvas, cortical, ((side * 100, -8, -370), (side * 104, -8, -420), (side * 100, -6, -500)), 15)
        tube(canvas, spongy, ((side * 100, -8, -370), (side * 104, -8, -420), (side * 100, -6, -500)), 8)
        tube(canvas, spongy, ((side * 8, 40, -378), (side * 34, 30, -372), (side * 62, 4, -362)), 9)
    ellipsoid(canvas, spongy, (0, -72, -300), (42, 22, 52), angles=(18, 0, 0), rough=0.06)
