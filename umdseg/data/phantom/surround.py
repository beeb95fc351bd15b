"""What lies around the organs of a label map: skin, fat, muscle, bones, vessels, bowel, head, thighs.

Layers follow the distance from the body cavity (`fit.Fit.cavity`); vessels, bowel, pelvis and face
are the procedural template's own shapes in fitted coordinates.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from umdseg.data.phantom.fit import ANGLES, Fit
from umdseg.data.phantom.organs import is_bone, is_muscle
from umdseg.data.phantom.shapes import Box, Canvas, Floats, Numbers, ellipsoid, tube
from umdseg.data.phantom.skeleton import SPINE, paint_discs, paint_posterior_elements
from umdseg.data.phantom.thorax import paint_airways, paint_vessels
from umdseg.data.phantom.torso import paint_head, trunk_radius
from umdseg.data.phantom.tracers import code
from umdseg.data.phantom.vary import Vary
from umdseg.data.phantom.viscera import paint_brain, paint_colon, paint_pancreas

_WHOLE = (slice(None), slice(None), slice(None))
_SKIN = 3.5
_FRONT, _BACK = ANGLES / 4, 3 * ANGLES / 4


@dataclass
class FittedCanvas(Canvas):
    """A canvas whose template is pulled over a label map.

    Attributes:
        fit: how it is pulled.
        patient: (3, X, Y, Z) position of each voxel in the map, millimetres.
    """

    fit: Fit
    patient: Floats

    def box(self, low: Numbers, high: Numbers) -> Box:
        """Index box that contains the template box [low, high] (mm) whatever the deformation."""
        f = self.fit
        rows = np.flatnonzero((f.template_z >= low[2] - self.reach) & (f.template_z <= high[2] + self.reach))
        if not len(rows):
            return slice(0, 0), slice(0, 0), slice(0, 0)
        x = f.middle[rows, None] + f.width[rows, None] * np.array([low[0], high[0]])
        y = f.centre_y[rows, None] + f.depth[rows, None] * np.array([low[1], high[1]])
        start = np.array([x.min(), y.min(), f.z[rows[0]]]) - self.reach
        stop = np.array([x.max(), y.max(), f.z[rows[-1]]]) + self.reach
        ends = self.grid.to_index(np.stack([start, stop]))
        a = np.clip(np.floor(ends[0]), 0, self.grid.shape).astype(int)
        b = np.clip(np.ceil(ends[1]) + 1, 0, self.grid.shape).astype(int)
        return slice(a[0], b[0]), slice(a[1], b[1]), slice(a[2], b[2])


def paint_surround(
    canvas: FittedCanvas, vary: Vary, fine: Floats, named: Collection[str], brain: Floats | None
) -> None:
    """Paint everything that is not an organ of the map.

    Args:
        canvas: empty.
        vary: the subject's habitus and jitter.
        fine: (C, X, Y, Z) smooth unit-variance fields about 12 mm wide.
        named: structures the map's ids name; the template's own are then left out.
        brain: (X, Y, Z) distance (mm) to the map's brain, None when it has none.
    """
    below = _layers(canvas, vary, fine, muscles=not any(map(is_muscle, named)))
    paint_head(canvas)
    if not any(map(is_bone, named)):
        _chest_wall(canvas, below)
        _spine(canvas)
        _psoas(canvas)
        _pelvis(canvas)
    _skull(canvas, vary, named, brain)
    paint_airways(canvas, vary)
    if "aorta" not in named:
        paint_vessels(canvas, vary)
    if "small_bowel" not in named:
        _small_bowel(canvas, below)
    if "pancreas" not in named:
        paint_pancreas(canvas, vary)
    if "colon" not in named:
        paint_colon(canvas, vary)


def _layers(canvas: FittedCanvas, vary: Vary, fine: Floats, muscles: bool) -> Floats:
    """Skin, fat, muscle, cavity; returns the distance (mm) from the cavity's wall, negative inside."""
    f, fat = canvas.fit, vary.habitus.fat
    t = canvas.position[2]
    radius, angle = f.polar(canvas.patient)
    z = canvas.patient[2]
    below = radius - f.radius(f.cavity, z, angle)
    outer, padding = _outer(f, fat)
    skin = f.radius(outer, z, angle) - radius
    body = (skin > 0) & (t < 395) & (t > -400) | _thighs(canvas, 0.0)
    skin = np.where(t < -400, np.float32(20.0) * _thighs(canvas, fat * 0.8 + _SKIN), skin)
    canvas.paint(code("skin_line"), _WHOLE, body)
    canvas.paint(code("fat"), _WHOLE, body & (skin > _SKIN))
    meat = body & (skin > _SKIN + f.radius(padding, z, angle)) if muscles else body & (below < 12)
    canvas.paint(code("muscle"), _WHOLE, meat)
    # fat between the muscles
    streak = meat & (np.abs(fine[0]) < 0.16) & (below > 6)
    canvas.paint(code("muscle_fat"), _WHOLE, streak)
    inside = (below < -2) & (t > -385) & (t < 225)
    canvas.paint(code("visceral_fat"), _WHOLE, inside)
    chest = inside & (t + 20 * canvas.wobble[3] > 0)
    canvas.paint(code("soft"), _WHOLE, chest & (canvas.wobble[0] > -0.2))
    return np.asarray(below, dtype=np.float32)


def _outer(f: Fit, fat: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tables (N, ANGLES): distance of the skin, and thickness of the fat below it."""
    column, t = np.arange(ANGLES), f.template_z[:, None]
    behind = np.exp(-((((column - _BACK + ANGLES / 2) % ANGLES - ANGLES / 2) / (6.0 + 3.0 * (t < -60))) ** 2))
    ahead = np.exp(-((((column - _FRONT + ANGLES / 2) % ANGLES - ANGLES / 2) / 9.0) ** 2))
    # the long muscles of the back are thick, the abdominal wall is thin; the belly pads more than the chest
    wall = 15 + 26 * behind - 3 * ahead * (t < 0)
    chest = np.clip((t + 60) / 160, 0, 1)
    padding = fat * (1.15 - 0.45 * chest + 0.25 * ahead * (1 - chest)) * np.clip((300 - t) / 60, 0.35, 1)
    skin = f.cavity + wall + padding + _SKIN
    # shoulders, neck and hips are wider than what is in them
    template = trunk_radius(f.template_z, 0.0, ANGLES, f.width, f.depth) + 0.4 * (fat - 16.0)
    share = np.clip((t - 120) / 50, 0, 1) + np.clip((0 - t) / 80, 0, 1)
    skin = np.where(t > 225, template, np.maximum(skin, share * template))
    skin = np.maximum(skin, f.reach + 6.0 * (f.reach > 0))
    smooth = gaussian_filter(skin, (12.0 / (f.z[1] - f.z[0]), 1.2), mode=("nearest", "wrap"))
    return smooth, padding


def _thighs(canvas: FittedCanvas, inset: float) -> NDArray[np.bool_]:
    x, y, t = canvas.position
    # they part gradually
    width = 89 - 9 * np.clip((-400 - t) / 60, 0, 1) - inset
    thigh = np.hypot((np.abs(x) - 88) / width, (y + 5) / (88 - inset)) < 1
    return np.asarray(thigh & (t <= -400))


def _chest_wall(canvas: FittedCanvas, below: Floats) -> None:
    """Ribs, breastbone, shoulder blades and collar bones, in the shell around the cavity."""
    x, y, t = canvas.position
    cortical, spongy = code("cortical_bone"), code("spongy_bone")
    # ribs fall towards the front
    height = t + 0.42 * (y + 60) + 0.1 * np.abs(x)
    phase = np.mod(height, 25.0)
    cage = (height > -95) & (height < 225) & (np.abs(x) > 22) & ((y < 55) | (height < 40))
    rib = (np.abs(below - 6.0) < 4.2) & (phase < 10.5) & cage
    canvas.paint(cortical, _WHOLE, rib)
    marrow = rib & (np.abs(below - 6.0) < 2.0) & (np.abs(phase - 5.2) < 2.8)
    canvas.paint(spongy, _WHOLE, marrow)
    sternum = (np.abs(x) < 17) & (y > 20) & (np.abs(below - 8) < 6) & (t > 25) & (t < 165)
    canvas.paint(spongy, _WHOLE, sternum)
    blade = (np.abs(below - 19) < 3.2) & (np.abs(np.abs(x) - 92) < 38) & (y < -10) & (t > 75) & (t < 190)
    blade &= np.abs(np.abs(x) - 92) < 8 + 0.28 * (t - 75)
    canvas.paint(cortical, _WHOLE, blade)
    for side in (-1, 1):
        collar = ((side * 14, 46, 172), (side * 60, 44, 190), (side * 118, 6, 204), (side * 138, -10, 200))
        tube(canvas, cortical, collar, 6.0)
        ellipsoid(canvas, cortical, (side * 142, -14, 182), (24, 24, 24), rough=0.03)
        ellipsoid(canvas, spongy, (side * 142, -14, 182), (21, 21, 21), rough=0.03)


def _skull(canvas: FittedCanvas, vary: Vary, named: Collection[str], brain: Floats | None) -> None:
    """Scalp, skull and fluid around the map's brain, or the template's head without one."""
    bones = not any(map(is_bone, named))
    if brain is None:
        ellipsoid(canvas, code("cortical_bone" if bones else "soft"), (0, -2, 430), (77, 92, 75), rough=0.01)
        if "brain" in named:
            # the map says that there is no brain in view: nothing may look like one
            ellipsoid(canvas, code("soft"), (0, -2, 431), (67, 82, 64), rough=0.015)
        else:
            paint_brain(canvas, vary)
        return
    air = [code("air"), code("skin"), code("skin_line"), code("fat")]
    canvas.paint(code("skin_line"), _WHOLE, brain < 15.0, over=air)
    canvas.paint(code("fat"), _WHOLE, brain < 12.0, over=air)
    if bones:
        canvas.paint(code("cortical_bone"), _WHOLE, brain < 9.0)
        canvas.paint(code("spongy_bone"), _WHOLE, (brain < 6.8) & (brain > 4.0))
    canvas.paint(code("fluid"), _WHOLE, brain < 2.5)


def _spine(canvas: FittedCanvas) -> None:
    widths = (26, 25, 23, 20, 17, 14, 11, 10)
    for name, shrink in (("cortical_bone", 0.0), ("spongy_bone", 2.0)):
        tube(canvas, code(name), SPINE, [w - shrink for w in widths])
    paint_discs(canvas)
    paint_posterior_elements(canvas, code("cortical_bone"))


def _psoas(canvas: FittedCanvas) -> None:
    muscle = code("muscle")
    over = [code("visceral_fat"), code("soft")]
    for side in (-1, 1):
        course = ((30, -56, -110), (42, -46, -190), (56, -26, -265), (88, 16, -350))
        knots = [(side * a, b, c) for a, b, c in course]
        tube(canvas, muscle, knots, (10, 18, 21, 14), over=over)


def _pelvis(canvas: FittedCanvas) -> None:
    """Iliac wings, sacrum, hip joints, pubic bones and femora."""
    cortical, spongy = code("cortical_bone"), code("spongy_bone")
    x, y, t = canvas.position
    # each wing is a bent plate from the sacroiliac joint to the front and outwards, flaring upwards
    plate = np.abs(x) - (48 + 0.62 * (y + 72) + 0.0045 * (y + 20) ** 2 + 0.10 * (t + 330))
    edge = -212 - 62 * ((y + 22) / 58) ** 2
    wing = (np.abs(plate) < 6.5) & (t > -345) & (t < edge) & (y > -82) & (y < 36)
    canvas.paint(cortical, _WHOLE, wing)
    canvas.paint(spongy, _WHOLE, wing & (np.abs(plate) < 3.2) & (t < edge - 5))
    for name, less in (("cortical_bone", 0.0), ("spongy_bone", 3.0)):
        tissue = code(name)
        sacrum = (44 - less, 21 - less, 52)
        ellipsoid(canvas, tissue, (0, -72, -298), sacrum, angles=(18, 0, 0), rough=0.05)
        for side in (-1, 1):
            socket, head = (30 - less, 34 - less, 36 - less), (23 - less,) * 3
            ellipsoid(canvas, tissue, (side * 74, -12, -348), socket, rough=0.05)
            pubis = ((side * 8, 40, -378), (side * 34, 32, -372), (side * 62, 6, -358))
            tube(canvas, tissue, pubis, 9 - less)
            tube(canvas, tissue, ((side * 64, -28, -362), (side * 56, -34, -400)), 14 - less)
            tube(canvas, tissue, ((side * 92, -6, -350), (side * 118, -10, -378)), 14 - less)
            if not less:
                # joint space
                ellipsoid(canvas, code("soft"), (side * 92, -6, -350), (26, 26, 26), rough=0.03)
            ellipsoid(canvas, tissue, (side * 92, -6, -350), head, rough=0.03)
    for side in (-1, 1):
        shaft = ((side * 120, -10, -372), (side * 116, -8, -420), (side * 106, -6, -560))
        tube(canvas, cortical, shaft, 14)
        tube(canvas, spongy, shaft, 7.5)


def _small_bowel(canvas: FittedCanvas, below: Floats) -> None:
    """Winding loops in the free peritoneal cavity; the upper ones are jejunum."""
    x, y, t = canvas.position
    far = np.hypot(canvas.wobble[1], canvas.wobble[2])
    room = (x / 112) ** 2 + ((t + 215) / 128) ** 2 + 0.12 * canvas.wobble[3] < 1
    loops = (far < 0.80) & (below < -8) & room & (y > -30) & (canvas.codes == code("visceral_fat"))
    upper = t - 0.4 * x > -175
    canvas.paint(code("bowel"), _WHOLE, loops)
    canvas.paint(code("small_bowel"), _WHOLE, loops & upper)
    gas = loops & (far < 0.32) & (canvas.wobble[3] > 1.1) & (y > 10)
    canvas.paint(code("bowel_gas"), _WHOLE, gas)
