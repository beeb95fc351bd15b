"""Abdomen, pelvis and head: liver, spleen, kidneys, pancreas, stomach, colon, bladder, brain."""

from __future__ import annotations

import numpy as np

from umdseg.data.phantom.shapes import Canvas, Floats, Keep, ellipsoid, tube
from umdseg.data.phantom.thorax import diaphragm
from umdseg.data.phantom.tissues import TISSUES
from umdseg.data.phantom.torso import WALL, trunk_level
from umdseg.data.phantom.vary import Vary

STOMACH = ((-44, -6, -28), (-62, 16, -46), (-58, 36, -82), (-28, 46, -104), (12, 40, -102))
PANCREAS = ((38, 14, -132), (26, 20, -112), (0, 22, -104), (-32, 8, -98), (-68, -14, -84))
ASCENDING = ((80, -14, -252), (88, -8, -210), (90, -4, -165), (84, 16, -134))
TRANSVERSE = ((60, 50, -140), (20, 62, -158), (-26, 62, -152), (-66, 40, -120))
DESCENDING = ((-92, -8, -108), (-98, -22, -150), (-96, -20, -210), (-84, -10, -262))
SIGMOID = ((-48, 2, -300), (-10, -14, -296), (4, -38, -322), (0, -48, -360), (0, -46, -392))
# tissues the colon does not displace
FIRM = (
    *("liver", "spleen", "kidney_left", "kidney_right"),
    *("stomach_wall", "stomach_content", "aorta", "pancreas"),
)


def paint_brain(canvas: Canvas, vary: Vary) -> None:
    """Grey matter with a white core, inside the skull."""
    radii = vary.size("brain", (67, 82, 64), 0.03)
    ellipsoid(canvas, TISSUES["grey_matter"].code, (0, -2, 431), radii, rough=0.015)
    ellipsoid(canvas, TISSUES["white_matter"].code, (0, -2, 433), radii * 0.74, rough=0.14, channel=3)


def paint_abdomen(canvas: Canvas, vary: Vary) -> None:
    """Paint in the order in which organs yield to each other."""
    _liver(canvas, vary)
    _spleen(canvas, vary)
    _kidneys(canvas, vary)
    paint_pancreas(canvas, vary)
    _stomach(canvas, vary)
    paint_colon(canvas, vary)
    _bladder(canvas, vary)


def _below_diaphragm(vary: Vary, reach: float = 1.02) -> Keep:
    inset = 2.5 + vary.habitus.fat + WALL

    def keep(p: Floats) -> np.ndarray:
        return np.asarray((p[2] < diaphragm(p) - 2) & (trunk_level(p, inset) < reach))

    return keep


def _liver(canvas: Canvas, vary: Vary) -> None:
    code, keep = TISSUES["liver"].code, _below_diaphragm(vary)
    yielding = ("soft", "visceral_fat", "bowel", "bowel_gas", "muscle", "fat", "vein")
    spared = [TISSUES[n].code for n in yielding]
    centre, radii = vary.place("liver", (64, 8, -52), 4), vary.size("liver", (75, 80, 92), 0.06)
    tilt = vary.tilt("liver", (0, 18, 0), 5)
    ellipsoid(canvas, code, centre, radii, angles=tilt, channel=1, over=spared, keep=keep)
    lobe = centre + np.array([-66, 22, 22])
    size = vary.size("liver_left", (66, 36, 38), 0.10)
    ellipsoid(canvas, code, lobe, size, angles=(0, -12, 12), channel=2, over=spared, keep=keep)
    bladder = centre + np.array([-22, 42, -48])
    ellipsoid(canvas, TISSUES["gallbladder"].code, bladder, vary.size("gallbladder", (14, 14, 26), 0.15))


def _spleen(canvas: Canvas, vary: Vary) -> None:
    keep = _below_diaphragm(vary, 1.0)
    centre, radii = vary.place("spleen", (-98, -38, -44), 5), vary.size("spleen", (30, 43, 56), 0.10)
    tilt = vary.tilt("spleen", (-18, -12, 18), 7)
    ellipsoid(canvas, TISSUES["spleen"].code, centre, radii, angles=tilt, channel=2, keep=keep)


def _kidneys(canvas: Canvas, vary: Vary) -> None:
    for side, name, z in ((1, "right", -128.0), (-1, "left", -112.0)):
        centre = vary.place(f"kidney_{name}", (side * 60, -50, z), 5)
        radii = vary.size(f"kidney_{name}", (30, 28, 57), 0.08)
        tilt = vary.tilt(f"kidney_{name}", (8, side * -9, side * 28), 5)
        renal, fat = TISSUES[f"kidney_{name}"].code, TISSUES["visceral_fat"].code
        ellipsoid(canvas, fat, centre, radii * 1.18, angles=tilt, over=[TISSUES["muscle"].code])
        ellipsoid(canvas, renal, centre, radii, angles=tilt, rough=0.03, channel=side)
        hilum = centre + np.array([-side * 25, 10, 0])
        ellipsoid(canvas, fat, hilum, radii * (0.40, 0.45, 0.3), over=[renal])
        pelvis, middle = TISSUES[f"pelvis_{name}"].code, hilum + np.array([side * 14, 0, 0])
        ellipsoid(canvas, pelvis, middle, radii * (0.36, 0.4, 0.36), over=[renal])


def paint_pancreas(canvas: Canvas, vary: Vary) -> None:
    """Pancreas, head to tail."""
    knots = vary.path("pancreas", PANCREAS, 4)
    radius = vary.factor("pancreas", 0.1) * np.array([17, 16, 12.5, 12.5, 11])
    tube(canvas, TISSUES["pancreas"].code, knots, radius)


def _stomach(canvas: Canvas, vary: Vary) -> None:
    fill = vary.habitus.stomach
    knots = vary.path("stomach", STOMACH, 5)
    radius = fill * np.array([24, 33, 31, 24, 15]) * vary.factor("stomach", 0.05)
    keep = _below_diaphragm(vary)
    tube(canvas, TISSUES["stomach_wall"].code, knots, radius, keep=keep)
    inner = np.maximum(radius - 6, 5)
    tube(canvas, TISSUES["stomach_content"].code, knots, inner, over=[TISSUES["stomach_wall"].code])
    # the patient lies on the back: gas collects in front
    gas = vary.rng("stomach/gas").uniform(0.3, 0.9)
    bubble = knots[1] + np.array([0, radius[1] * 0.55, 6])
    content = [TISSUES["stomach_content"].code]
    size = radius[1] * gas * np.array([0.6, 0.35, 0.6])
    ellipsoid(canvas, TISSUES["bowel_gas"].code, bubble, size, over=content)


def paint_colon(canvas: Canvas, vary: Vary) -> None:
    """Colon and rectum with gas, where no firm organ is."""
    wall, gas = TISSUES["colon"].code, TISSUES["colon_gas"].code
    size = vary.factor("colon", 0.10)
    knots = vary.path("colon", (*ASCENDING, *TRANSVERSE, *DESCENDING, *SIGMOID), 4)
    radius = size * np.interp(np.arange(len(knots)), [0, 4, 11, 13, 16], [24, 20, 17, 15, 18])
    yielding = [tissue.code for name, tissue in TISSUES.items() if name not in FIRM]
    tube(canvas, wall, knots, radius, over=yielding)
    rng = vary.rng("colon/gas")
    for index in range(len(knots) - 3):
        if rng.random() < 0.45:
            extent = radius[index] * rng.uniform(0.35, 0.75, 3)
            ellipsoid(canvas, gas, knots[index] + np.array([0, 4, 0]), extent, over=[wall])


def _bladder(canvas: Canvas, vary: Vary) -> None:
    centre = vary.place("bladder", (0, 16, -356), 4)
    radii = vary.habitus.bladder * vary.size("bladder", (42, 37, 35), 0.04)
    ellipsoid(canvas, TISSUES["bladder_wall"].code, centre, radii, rough=0.04)
    ellipsoid(canvas, TISSUES["urine"].code, centre, radii - 4, rough=0.04)
