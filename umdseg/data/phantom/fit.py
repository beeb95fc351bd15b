"""Where an unseen body lies around the organs of a label map.

An organ map shows no skin, no bone, no vessel. What it lacks is taken from the procedural template,
pulled over the map: a height in the patient becomes a height of the template by landmarks (apex of the
lungs, dome of the liver, kidneys, bladder, glands, top of the brain), the midline and the spine
follow the organs, and width and depth follow the rib cage's content. The body cavity is star-shaped in
every slice: the convex hull of the viscera, smoothed along height and angle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.spatial import ConvexHull, QhullError

from umdseg.data.geometry import Grid
from umdseg.data.phantom.labelmap import LabelMap
from umdseg.data.phantom.organs import is_bone, is_gland, is_lung, is_muscle
from umdseg.data.phantom.shapes import Floats
from umdseg.data.phantom.skeleton import SPINE
from umdseg.data.phantom.torso import trunk_radius
from umdseg.errors import UserError

Array = NDArray[np.float64]
ANGLES = 72
_SPINE_Z, _SPINE_Y = (np.array(c, dtype=float) for c in zip(*((z, y) for _, y, z in SPINE), strict=True))
# half width of the template's rib cage content, and its depth in front of the spine, at the level of
# the heart (millimetres)
_WIDTH, _DEPTH = 127.0, 137.0
# column of the direction on the other side of the body
_MIRRORED = (ANGLES // 2 - np.arange(ANGLES)) % ANGLES


@dataclass(frozen=True)
class Fit:
    """Template pulled over one map; every array is given per height `z`.

    Attributes:
        z: (N,) heights in the patient, millimetres, evenly spaced.
        template_z: (N,) the template's heights.
        middle: (N,) x of the midline in the patient.
        spine: (N,) y of the vertebral bodies in the patient.
        width: (N,) patient millimetres per template millimetre along x.
        depth: (N,) the same along y.
        cavity: (N, ANGLES) distance (mm) of the cavity's wall from the slice's centre.
        reach: (N, ANGLES) distance up to which the map has labels of any kind.
    """

    z: Array
    template_z: Array
    middle: Array
    spine: Array
    width: Array
    depth: Array
    cavity: Array
    reach: Array

    @property
    def centre_y(self) -> Array:
        """(N,) patient y of the slices' centres: the template's y = 0."""
        behind: Array = self.depth * np.interp(self.template_z, _SPINE_Z, _SPINE_Y)
        return self.spine - behind

    def at(self, values: Array, z: Floats) -> Floats:
        """Values per height at heights `z` of any shape."""
        return np.interp(z, self.z, values).astype(np.float32)

    def to_template(self, position: Floats) -> Floats:
        """(3, ...) patient millimetres -> template millimetres."""
        x, y, z = position
        out = np.empty_like(position)
        out[0] = (x - self.at(self.middle, z)) / self.at(self.width, z)
        out[1] = (y - self.at(self.centre_y, z)) / self.at(self.depth, z)
        out[2] = self.at(self.template_z, z)
        return out

    def polar(self, position: Floats) -> tuple[Floats, Floats]:
        """Distance (mm) from the slice's centre, and angle in units of the tables' columns."""
        x, y, z = position
        dx, dy = x - self.at(self.middle, z), y - self.at(self.centre_y, z)
        angle = np.arctan2(dy, dx) * np.float32(ANGLES / (2 * np.pi)) % ANGLES
        return np.hypot(dx, dy), angle.astype(np.float32)

    def radius(self, table: Array, z: Floats, angle: Floats) -> Floats:
        """A (N, ANGLES) table at heights and angles, bilinear."""
        values = np.concatenate([table, table[:, :1]], axis=1).astype(np.float32)
        row = np.clip((z - np.float32(self.z[0])) / np.float32(self.z[1] - self.z[0]), 0, len(self.z) - 1.001)
        i, j = row.astype(np.int32), np.minimum(angle, ANGLES - 1e-3).astype(np.int32)
        a, b = row - i, angle - j
        low = values[i, j] * (1 - b) + values[i, j + 1] * b
        high = values[i + 1, j] * (1 - b) + values[i + 1, j + 1] * b
        return np.asarray(low * (1 - a) + high * a, dtype=np.float32)


def fit(label: LabelMap, z: Array) -> Fit:
    """Pull the template over a map.

    Args:
        label: the map, coarse (3 mm or so) to be quick.
        z: (N,) heights wanted, evenly spaced.

    Raises:
        UserError: none of the organs that tell where the body is.
    """
    marks = _Marks.of(label)
    template_z = marks.height(z)
    middle = _profile(marks.middle, z)
    spine = _profile(marks.spine, z) if marks.spine else None
    if spine is None:
        # nothing tells the depth: the organs' centre of gravity lies in front of the spine
        spine = np.full(len(z), float(np.mean([p[1] for p in marks.points.values()])) - 60.0)
    width, depth = _scales(marks, template_z)
    fitted = Fit(z, template_z, middle, spine, width, depth, np.empty(0), np.empty(0))
    cavity, reach = _walls(label, fitted)
    return Fit(z, template_z, middle, spine, width, depth, cavity, reach)


@dataclass(frozen=True)
class _Marks:
    """Landmarks: centres of organs, and (height, value) pairs."""

    points: dict[str, Array]
    heights: list[tuple[float, float]]
    middle: list[tuple[float, float]]
    spine: list[tuple[float, float]]
    chest: Array

    def height(self, z: Array) -> Array:
        """Template height of patient heights: monotone through the landmarks, slope 1 beyond."""
        marks: list[tuple[float, float]] = []
        for mark in sorted(self.heights):
            # a landmark that would stretch the template beyond what bodies differ is left out
            if not marks or 0.6 < (mark[1] - marks[-1][1]) / max(mark[0] - marks[-1][0], 1e-6) < 1.6:
                marks.append(mark)
        x, y = np.array(marks).T
        inner = PchipInterpolator(x, y)(np.clip(z, x[0], x[-1])) if len(x) > 1 else np.full(len(z), y[0])
        return np.asarray(inner + np.minimum(z - x[0], 0) + np.maximum(z - x[-1], 0))

    @classmethod
    def of(cls, label: LabelMap) -> _Marks:
        organs = _points(label)
        heights: list[tuple[float, float]] = []
        middle: list[tuple[float, float]] = []
        spine: list[tuple[float, float]] = []
        chest = np.empty((0, 3))
        if "lung" in organs:
            chest = organs["lung"]
            top = float(np.percentile(chest[:, 2], 99.8))
            heights.append((top, 216.0))
            heart = organs.get("heart", chest)
            for level in np.linspace(np.percentile(heart[:, 2], 20), top - 40, 6):
                slab = chest[np.abs(chest[:, 2] - level) < 12]
                low, high = np.percentile(slab[:, 0], [1, 99])
                middle.append((float(level), float(low + high) / 2))
                # vertebral bodies lie about 32 mm in front of the lungs' hindmost parts
                spine.append((float(level), float(np.percentile(slab[:, 1], 3)) + 32.0))
        # name, template height, part of the organ's height, y of the spine behind its centre
        for name, height, share, behind in (
            ("liver", 8.0, 99.5, None),
            ("kidney", -120.0, 50.0, -6.0),
            ("urinary_bladder", -388.0, 3.0, -80.0),
            ("gland", 352.0, 50.0, -38.0),
            ("brain", 495.0, 99.8, -24.0),
        ):
            points = organs.get(name)
            whole_brain = name != "brain" or (points is not None and _litres(points, label) > 0.6)
            if points is None or not whole_brain:
                continue
            heights.append((float(np.percentile(points[:, 2], share)), height))
            if behind is not None:
                centre = points.mean(axis=0)
                spine.append((float(centre[2]), float(centre[1] + behind)))
                if name != "kidney":
                    middle.append((float(centre[2]), float(centre[0])))
        if not heights:
            expected = "lungs, liver, kidneys, urinary bladder, brain or salivary glands among them"
            raise UserError(
                "label map has no organ that tells where the body is",
                where=f"structures {', '.join(label.structures)}",
                expected=expected,
            )
        if not middle:
            whole = np.concatenate(list(organs.values()))
            middle.append((float(whole[:, 2].mean()), float(whole[:, 0].min() + np.ptp(whole[:, 0]) / 2)))
        centres = {name: points.mean(axis=0) for name, points in organs.items()}
        return cls(centres, heights, middle, spine, chest)


def _points(label: LabelMap) -> dict[str, Array]:
    """Positions (mm) of the voxels of each organ, sides and lobes together."""
    ids: dict[str, list[int]] = {}
    for name, number in label.structures.items():
        whole = "kidney" if name.startswith("kidney_") and name.count("_") == 1 else name
        whole = "lung" if is_lung(name) else "gland" if is_gland(name) else whole
        ids.setdefault(whole, []).append(number)
    found = {}
    for name, numbers in ids.items():
        voxels = np.argwhere(np.isin(label.array, numbers)).astype(np.float64)
        if len(voxels) * label.grid.voxel_ml >= 1.0:
            found[name] = label.grid.to_world(voxels)
    return found


def _litres(points: Array, label: LabelMap) -> float:
    return len(points) * label.grid.voxel_ml / 1000


def _profile(marks: list[tuple[float, float]], z: Array) -> Array:
    x, y = np.array(sorted(marks)).T
    step = float(z[1] - z[0])
    return np.asarray(gaussian_filter1d(np.interp(z, x, y), 25.0 / step, mode="nearest"))


def _scales(marks: _Marks, template_z: Array) -> tuple[Array, Array]:
    width = depth = 1.0
    if len(marks.chest):
        levels = np.array(sorted(marks.middle))
        middle = np.interp(marks.chest[:, 2], levels[:, 0], levels[:, 1])
        width = float(np.clip(np.percentile(np.abs(marks.chest[:, 0] - middle), 99) / _WIDTH, 0.8, 1.25))
        back = np.interp(marks.chest[:, 2], *np.array(sorted(marks.spine)).T)
        depth = float(np.clip(np.percentile(marks.chest[:, 1] - back, 99.5) / _DEPTH, 0.7, 1.25))
    # neck and head do not grow with the chest
    share = np.clip((290 - template_z) / 70, 0, 1)
    return 1 + (width - 1) * share, 1 + (depth - 1) * share


def _walls(label: LabelMap, fitted: Fit) -> tuple[Array, Array]:
    """Tables (N, ANGLES) of the cavity's wall and of the reach of all labels."""
    names = {number: name for name, number in label.structures.items()}
    head = [n for n, name in names.items() if name == "brain" or is_gland(name) or name == "skull"]
    limbs = [n for n, name in names.items() if is_bone(name) or is_muscle(name)]
    cavity = _hulls(label, fitted, [*head, *limbs])
    reach = _hulls(label, fitted, head)
    # bodies are about symmetric, also where only the liver shows a side
    cavity = np.maximum(cavity, 0.94 * cavity[:, _MIRRORED])
    trunk = trunk_radius(fitted.template_z, 30.0, ANGLES, fitted.width, fitted.depth)
    t = fitted.template_z[:, None]
    # the true pelvis is narrow
    trunk *= 1 - 0.42 * np.clip((-225 - t) / 90, 0, 1)
    # in the chest the lungs show the wall; below they do not, and the template says where it is
    share = np.clip((10 - t) / 50, 0, 1)
    wall = np.maximum(cavity + 3.0 * (cavity > 0), share * trunk)
    neck = np.clip((t - 190) / 30, 0, 1) * np.minimum(trunk, 34.0)
    step = fitted.z[1] - fitted.z[0]
    smooth = gaussian_filter(np.maximum(wall, neck), (14.0 / step, 1.5), mode=("nearest", "wrap"))
    return np.maximum(smooth, cavity + 1.5 * (cavity > 0)), reach


def _hulls(label: LabelMap, fitted: Fit, without: list[int]) -> Array:
    """Distance of the convex hull of a slice's labels, 0 where there are none."""
    grid: Grid = label.grid
    out = np.zeros((len(fitted.z), ANGLES))
    angle = np.arange(ANGLES) * 2 * np.pi / ANGLES
    ray = np.stack([np.cos(angle), np.sin(angle)])
    keep = (label.array > 0) & ~np.isin(label.array, without)
    heights = grid.affine[2, 3] + grid.spacing[2] * np.arange(grid.shape[2])
    for row, z in enumerate(fitted.z):
        k = int(np.argmin(np.abs(heights - z)))
        voxels = np.argwhere(keep[:, :, k]) if abs(heights[k] - z) <= grid.spacing[2] else np.empty((0, 2))
        if len(voxels) < 12:
            continue
        centre = np.array([fitted.middle[row], fitted.centre_y[row]])
        points = voxels * grid.spacing[:2] + grid.affine[:2, 3] - centre
        # the vertebral body lies in the cavity's back, and the centre lies inside
        back = fitted.spine[row] - centre[1]
        spine = np.array([(-22.0, back), (22.0, back), (0.0, back - 22.0), (0.0, back + 22.0)])
        disc = 12.0 * ray.T[:: ANGLES // 8]
        try:
            facets = ConvexHull(np.concatenate([points, spine, disc])).equations
        except QhullError:
            continue
        slope = facets[:, :2] @ ray
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(slope > 1e-9, -facets[:, 2:] / slope, np.inf)
        out[row] = distance.min(axis=0)
    return out


def coarse(label: LabelMap, step: float) -> LabelMap:
    """The map at no less than about `step` millimetres, by leaving voxels out."""
    stride = [max(1, round(step / s)) for s in label.grid.spacing]
    array = np.ascontiguousarray(label.array[:: stride[0], :: stride[1], :: stride[2]])
    affine = label.grid.affine @ np.diag([*stride, 1.0])
    shape = (array.shape[0], array.shape[1], array.shape[2])
    return LabelMap(array, Grid(shape, affine), label.structures)
