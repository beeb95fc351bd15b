"""Chest: lungs, airways, heart, great vessels, oesophagus."""

from __future__ import annotations

import numpy as np

from umdseg.data.phantom.shapes import Canvas, Floats, ellipsoid, tube
from umdseg.data.phantom.tissues import TISSUES
from umdseg.data.phantom.torso import WALL, trunk_level
from umdseg.data.phantom.vary import Vary

AORTA = (
    (4, 16, 62), (8, 26, 92), (4, 22, 122), (-8, 4, 140), (-17, -20, 130), (-20, -34, 96),
    (-19, -38, 30), (-14, -36, -40), (-8, -28, -110), (-6, -24, -160), (-5, -26, -196),
)  # fmt: skip
OESOPHAGUS = (
    (0, -14, 300), (-3, -18, 240), (-6, -26, 180), (-7, -30, 130),
    (-6, -24, 80), (-9, -20, 30), (-20, -12, -12), (-34, 0, -34),
)  # fmt: skip


def diaphragm(position: Floats) -> Floats:
    """Height (mm) of the diaphragm above each (x, y): two domes, the right one higher."""
    x, y = position[0], position[1]
    right = 22 * np.exp(-(((x - 70) / 60) ** 2) - ((y - 5) / 75) ** 2)
    left = 10 * np.exp(-(((x + 72) / 55) ** 2) - ((y - 5) / 75) ** 2)
    slope = np.minimum(0.0, y + 10) * 0.95
    return np.asarray(right + left + slope - 12, dtype=np.float32)


def paint_chest(canvas: Canvas, vary: Vary) -> None:
    """Paint lungs first; heart and vessels take their place from them."""
    _lungs(canvas, vary)
    paint_airways(canvas, vary)
    _heart(canvas, vary)
    paint_vessels(canvas, vary)
    knots = vary.path("esophagus", OESOPHAGUS, 3.0)
    tube(canvas, TISSUES["esophagus"].code, knots, 9.0 * vary.factor("esophagus", 0.10))


def _lungs(canvas: Canvas, vary: Vary) -> None:
    position = canvas.position
    inset = 2.5 + vary.habitus.fat + WALL + 3
    room = trunk_level(position, inset) < 1
    lung = TISSUES["lung"].code
    soft, fat = TISSUES["soft"].code, TISSUES["visceral_fat"].code

    for side, name, centre, radii in (
        (1, "lung_right", (74, 0, 68), (64, 92, 152)),
        (-1, "lung_left", (-74, -2, 70), (62, 90, 150)),
    ):
        centre_, radii_ = vary.place(name, centre, 4), vary.size(name, radii, 0.05)

        def keep(p: Floats, side: int = side) -> np.ndarray:
            above = p[2] > diaphragm(p)
            return np.asarray(above & (side * p[0] > 17 - 0.06 * p[1]))

        box = canvas.box(centre_ - radii_ * 1.2, centre_ + radii_ * 1.2)
        before = canvas.codes[box].copy()
        ellipsoid(canvas, lung, centre_, radii_, rough=0.03, channel=1, over=[soft, fat], keep=keep)
        region = canvas.codes[box]
        outside = (region == lung) & (before != lung) & ~room[box]
        region[outside] = before[outside]


def paint_airways(canvas: Canvas, vary: Vary) -> None:
    """Trachea and main bronchi."""
    air = TISSUES["airway"].code
    fork = (2, -14, 118)
    tube(canvas, air, ((0, 4, 330), (0, -2, 270), (1, -8, 190), fork), 8.5)
    for side in (-1, 1):
        tube(canvas, air, (fork, (side * 22, -16, 98), (side * 42, -20, 80)), 6.0)


def _heart(canvas: Canvas, vary: Vary) -> None:
    centre = vary.place("heart", (-24, 26, 34), 5)
    radii = vary.size("heart", (58, 47, 55), 0.08)
    angles = vary.tilt("heart", (0, 25, -30), 8)
    over = None
    blood, wall = TISSUES["heart_blood"].code, TISSUES["myocardium"].code
    ellipsoid(canvas, blood, centre, radii, angles=angles, rough=0.03, channel=2, over=over)
    left = centre + np.array([-16, 2, -6])
    ellipsoid(canvas, wall, left, radii * 0.66, angles=angles, rough=0.03, channel=2, over=[blood])
    ellipsoid(canvas, blood, left, radii * 0.40, angles=angles, rough=0.03, channel=2, over=[wall])


def paint_vessels(canvas: Canvas, vary: Vary) -> None:
    """Great veins, pulmonary vessels, aorta, iliac vessels."""
    vein = TISSUES["vein"].code
    lung = TISSUES["lung"].code
    tube(canvas, vein, ((24, 0, 150), (26, 4, 100), (24, 8, 60)), 9)
    for side in (-1, 1):
        tube(canvas, vein, ((side * 6, 14, 92), (side * 34, 2, 84), (side * 58, -8, 70)), (11, 9, 5))
        for tip in ((66, 20, 120), (80, -30, 110), (74, 10, 40), (70, -46, 34)):
            ends = (
                (side * 40, 0, 82),
                (side * tip[0] * 0.8, tip[1] * 0.6, tip[2]),
                (side * tip[0], *tip[1:]),
            )
            tube(canvas, vein, ends, (6, 4, 3), over=[lung])
    knots = vary.path("vena_cava", ((22, 2, 30), (22, -10, -40), (17, -22, -110), (14, -28, -196)), 3)
    tube(canvas, vein, knots, 11 * vary.factor("vena_cava", 0.12))
    aorta = vary.path("aorta", AORTA, 2.5)
    radius = vary.factor("aorta", 0.09) * np.interp(np.arange(len(AORTA)), [0, 3, 10], [16.5, 14.5, 10.5])
    tube(canvas, TISSUES["aorta"].code, aorta, radius)
    for side in (-1, 1):
        tube(canvas, vein, ((side * 5, -27, -200), (side * 32, -22, -250), (side * 50, 10, -330)), 7)
