"""What the organs of a label map look like inside: walls, contents, cortex and core.

A map says where an organ ends, not what is in it. Its inside is told apart by the depth below its
surface and the position in it: wall, content and gas of stomach and bowel (gas in front, the patient
lies on the back), wall and urine of the bladder, cortex, medulla and pelvis of kidneys, grey matter,
white matter and ventricles, myocardium and blood, cortical and spongy bone, vessels of lung and liver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umdseg.data.phantom.shapes import Floats
from umdseg.data.phantom.tracers import code

Codes = NDArray[np.uint8]
_BONES = ("vertebrae", "rib", "hip", "femur", "humerus", "scapula", "clavicula", "sternum", "sacrum")
_MORE_BONES = ("skull", "costal_cartilages", "bone")
_MUSCLES = ("gluteus", "autochthon", "iliopsoas")
_SOLID = {
    "spleen": "spleen",
    "pancreas": "pancreas",
    "gallbladder": "gallbladder",
    "prostate": "prostate",
    "aorta": "aorta",
    "esophagus": "esophagus",
    "thyroid_gland": "thyroid",
    "adrenal_gland_left": "adrenal",
    "adrenal_gland_right": "adrenal",
    "trachea": "airway",
    "spinal_cord": "white_matter",
    "tumour": "lesion",
}
_HOLLOW = {
    "colon": ("colon", "colon", "colon_gas"),
    "small_bowel": ("small_bowel", "small_bowel", "bowel_gas"),
    "duodenum": ("small_bowel", "small_bowel", "bowel_gas"),
}
_VESSELS = ("artery", "vein", "vena", "atrial", "trunk")


@dataclass(frozen=True)
class Inside:
    """The voxels of one organ on one grid.

    Attributes:
        position: (N, 3) patient millimetres.
        depth: (N,) millimetres below the organ's surface.
        noise: (N, C) smooth unit-variance fields, about 12 mm wide, one draw per subject.
        centre: (3,) the organ's centre of gravity.
        size: radius (mm) of the sphere of the organ's volume.
        front: y above which the organ's foremost 1 % lies.
        back: y below which its hindmost 1 % lies.
        side: +1 on the patient's right of the midline, -1 on the left.
        draw: (4,) uniform numbers of the subject and organ.
    """

    position: NDArray[np.float64]
    depth: Floats
    noise: Floats
    centre: NDArray[np.float64]
    size: float
    front: float
    back: float
    side: int
    draw: NDArray[np.float64]

    def fill(self, name: str) -> Codes:
        """(N,) codes, all of one tissue."""
        return np.full(len(self.depth), code(name), dtype=np.uint8)

    def core(self, outside: str, thickness: Floats | float, inner: str) -> Codes:
        """(N,) codes, one tissue up to a depth (mm), another below."""
        return np.where(self.depth < thickness, code(outside), code(inner)).astype(np.uint8)

    def ellipsoid(self, offset: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
        """(N,) distance from a point near the organ's centre, in units of the radii."""
        local = (self.position - self.centre - np.asarray(offset)) / np.asarray(radii)
        return np.asarray(np.sqrt((local**2).sum(axis=1)), dtype=np.float32)


def is_bone(name: str) -> bool:
    """Whether a structure is (a part of) the skeleton."""
    return name.startswith(tuple(f"{b}_" for b in _BONES)) or name in (*_BONES, *_MORE_BONES)


def is_muscle(name: str) -> bool:
    """Whether a structure is skeletal muscle."""
    return name.startswith(_MUSCLES)


def is_lung(name: str) -> bool:
    """Whether a structure is a lung or a lobe of one."""
    parts = ("lung_upper", "lung_middle", "lung_lower", "lung_left", "lung_right")
    return name == "lung" or name.startswith(parts)


def is_gland(name: str) -> bool:
    """Whether a structure is a salivary gland."""
    return any(word in name for word in ("parotid", "submandibular", "salivary"))


def interior(name: str, inside: Inside) -> Codes:
    """Tissue codes (N,) of an organ's voxels.

    Structures without a tissue of their own look like soft tissue.
    """
    layered: dict[str, Callable[[Inside], Codes]] = {
        "liver": _liver,
        "brain": _brain,
        "heart": _heart,
        "stomach": _stomach,
        "urinary_bladder": _bladder,
        "kidney": _kidney,
        "kidney_left": _kidney,
        "kidney_right": _kidney,
    }
    if is_lung(name):
        return _lung(inside)
    if is_bone(name):
        return inside.core("cortical_bone", 3.0, "spongy_bone")
    if name in layered:
        return layered[name](inside)
    if name in _HOLLOW:
        return _hollow(inside, *_HOLLOW[name])
    return inside.fill(_solid(name))


def _solid(name: str) -> str:
    if is_muscle(name):
        return "muscle"
    if is_gland(name):
        return "gland"
    vessel = any(word in name for word in _VESSELS)
    return _SOLID.get(name, "vein" if vessel else "soft")


def filaments(noise: Floats, radius: Floats | float) -> NDArray[np.bool_]:
    """Thin winding tubes: where two smooth fields are both near zero."""
    return np.asarray(noise[:, 0] ** 2 + noise[:, 1] ** 2 < np.square(radius))


def _liver(inside: Inside) -> Codes:
    out = inside.fill("liver")
    out[filaments(inside.noise, 0.20) & (inside.depth > 7)] = code("liver_vessel")
    return out


def _brain(inside: Inside) -> Codes:
    n = inside.noise
    # the cortex folds: its depth below the hull varies
    out = inside.core("grey_matter", 6 + 4.5 * n[:, 0], "white_matter")
    out[(np.abs(n[:, 1]) < 0.14) & (inside.depth < 9)] = code("fluid")
    if inside.size > 50:
        for side in (-1, 1):
            out[inside.ellipsoid((side * 24, 4, 2), (11, 22, 14)) < 1] = code("grey_matter")
            out[inside.ellipsoid((side * 11, 2, 14), (6, 30, 9)) < 1] = code("fluid")
    return out


def _heart(inside: Inside) -> Codes:
    out = inside.fill("heart_blood")
    out[inside.depth < 2.5] = code("myocardium")
    # the left ventricle points to the left, to the front and down
    axis = np.array([-0.66, 0.56, -0.50])
    middle = inside.centre + inside.size * (0.22 * axis + np.array([-0.16, -0.10, -0.06]))
    local = inside.position - middle
    along = local @ axis / np.linalg.norm(axis)
    across = np.sqrt(np.clip((local**2).sum(axis=1) - along**2, 0, None))
    long, short = 0.82 * inside.size, 0.62 * inside.size
    out[(along / long) ** 2 + (across / short) ** 2 < 1] = code("myocardium")
    # open towards the base, where the valves are
    cavity = ((along + 6) / long) ** 2 + (across / (short - 11)) ** 2 < 1
    out[cavity & (along < long - 14)] = code("heart_blood")
    return out


def _stomach(inside: Inside) -> Codes:
    out = inside.fill("stomach_wall")
    lumen = inside.depth > 4.5
    out[lumen] = code("stomach_content")
    level = inside.front - (0.15 + 0.35 * inside.draw[0]) * (inside.front - inside.back)
    out[lumen & (inside.position[:, 1] > level)] = code("bowel_gas")
    return out


def _hollow(inside: Inside, wall: str, content: str, gas: str) -> Codes:
    out = inside.fill(content)
    out[(inside.depth > 3.5) & (inside.noise[:, 0] > 0.5)] = code(gas)
    out[inside.depth < 3.0] = code(wall)
    return out


def _bladder(inside: Inside) -> Codes:
    return inside.core("bladder_wall", 3.5, "urine")


def _kidney(inside: Inside) -> Codes:
    out = inside.fill("renal_cortex")
    out[inside.depth > 8 + 2.0 * inside.noise[:, 0]] = code("renal_medulla")
    # the pelvis opens towards the midline
    towards = -inside.side * (inside.position[:, 0] - inside.centre[0])
    middle = np.abs(inside.position[:, 2] - inside.centre[2]) < 0.55 * inside.size
    out[(towards > -4) & middle & (inside.depth > 9 + 1.5 * inside.noise[:, 1])] = code("renal_pelvis")
    return out


def _lung(inside: Inside) -> Codes:
    out = inside.fill("lung")
    y = inside.position[:, 1]
    # blood settles in the dependent parts
    share = (y - inside.back) / max(inside.front - inside.back, 1.0)
    out[share + 0.06 * inside.noise[:, 2] < 0.28] = code("lung_dependent")
    # vessels get wider towards the hilum, 35 mm beside the midline
    x = np.abs(inside.position[:, 0] - inside.centre[0]) - 35
    far = np.sqrt(x**2 + (y - inside.centre[1]) ** 2 + (inside.position[:, 2] - inside.centre[2]) ** 2)
    radius = np.clip(0.30 - far / 500, 0.12, 0.30).astype(np.float32)
    vessel = filaments(inside.noise, radius) & (inside.depth > 2)
    out[vessel] = code("lung_vessel")
    out[vessel & (far < 60)] = code("vein")
    return out
