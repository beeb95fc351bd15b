"""Phantoms on real anatomy: tissues around and inside the organs of a label map, and their scans.

Organs of the map are exactly its labels. What the map does not name comes from the procedural
template pulled over it (`fit`): skin, fat and muscle, spine, ribs, breastbone, shoulder blades, pelvis
and thighs, unless the map has bones of its own; trachea, aorta and great veins, colon, small bowel
and pancreas, unless the map names them. None of it is labelled. A structure that the
map's ids name but that the map lacks is not painted either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from umdseg.data.geometry import Grid, Volume
from umdseg.data.phantom.body import Breathing, Extent, grid_over
from umdseg.data.phantom.depth import Organ, distance_around, find_organ
from umdseg.data.phantom.fit import Fit, coarse, fit
from umdseg.data.phantom.imaging import (
    Scanner,
    computed_tomography,
    magnetic_resonance,
    positron_emission,
)
from umdseg.data.phantom.labelmap import LabelMap
from umdseg.data.phantom.organs import Inside, interior, is_gland, is_lung
from umdseg.data.phantom.shapes import Field, Floats
from umdseg.data.phantom.surround import FittedCanvas, paint_surround
from umdseg.data.phantom.tracers import tissue_table
from umdseg.data.phantom.vary import Habitus, Vary
from umdseg.seeds import generator

EXTENT_MM = (440.0, 320.0, 1000.0)
_STEP, _ROUGH_STEP, _FINE_STEP, _WARP_STEP = 4.0, 28.0, 13.0, 90.0
_WARP_MM, _SCALE_SD = 4.0, 0.04
# whole-body CT is read at 3 mm and more; an organ varies by 12 to 14 HU there (experiments/phantom_realism)
MAP_SCANNER = Scanner(ct_noise=(6.0, 16.0), mr_noise=(0.02, 0.05))
_SIMULATE: dict[str, Callable[..., NDArray[Any]]] = {
    "ct": computed_tomography,
    "mr": magnetic_resonance,
    "pet": positron_emission,
}


class MapAnatomy:
    """The anatomy that one label map gives; make it once and render any scan of it.

    Args:
        label: organs; `structures` says which.
        extent_mm: largest field of view along x, y, z; longer maps are cut at the feet first.

    Attributes:
        box: field of view in patient millimetres; it never reaches beyond the map.

    Raises:
        UserError: the map has no organ that tells where the body is.
    """

    def __init__(self, label: LabelMap, extent_mm: tuple[float, float, float] = EXTENT_MM) -> None:
        self.label = label
        small = coarse(label, _STEP)
        self.box = _field_of_view(small, label, extent_mm)
        low, high = self.box[0][2], self.box[1][2]
        self.fit: Fit = fit(small, np.arange(low - 40.0, high + 44.0, 4.0))
        self._brain = distance_around(small, small.structures.get("brain"))
        self._organs = [o for o in (find_organ(small, n, i) for n, i in label.structures.items()) if o]

    def scan(
        self, grid: Grid, seed: int, breathing_mm: float = 0.0, deform: float = 0.0
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Tissue codes and structure ids (X, Y, Z) on a grid.

        Args:
            grid: axis-aligned, in the map's patient space.
            seed: subject seed.
            breathing_mm: how far tissues, not labels, lie higher at the diaphragm.
            deform: strength of the seeded deformation of the whole person; 1 is a warp of 4 mm and
                4 % in size (standard deviations), 0 none.
        """
        still = self._place(grid, seed, deform)
        ids = self._labels(still)
        if not breathing_mm:
            return self._tissues(grid, seed, still, ids), ids
        moved = still.copy()
        moved[2] -= Breathing(breathing_mm).shift(self.fit.at(self.fit.template_z, still[2]))
        return self._tissues(grid, seed, moved, self._labels(moved)), ids

    def _place(self, grid: Grid, seed: int, deform: float) -> Floats:
        """(3, X, Y, Z) position in the map of every voxel of a subject's grid, millimetres."""
        position = _positions(grid)
        if deform:
            rng = generator(seed, "scale")
            scale = np.exp(deform * _SCALE_SD * rng.standard_normal(3).clip(-2, 2))
            middle = np.mean(self.box, axis=0)
            for axis in range(3):
                position[axis] = (position[axis] - middle[axis]) / scale[axis] + middle[axis]
            warp = Field.draw(generator(seed, "warp"), self._whole(), _WARP_STEP, 3)
            position += np.float32(deform * _WARP_MM) * warp.on(grid)
        return position

    def _labels(self, position: Floats) -> NDArray[Any]:
        """The map at (3, X, Y, Z) positions: nearest voxel, the outermost one repeated."""
        source = self.label.grid
        index = []
        for axis in range(3):
            step, first = np.float32(source.affine[axis, axis]), np.float32(source.affine[axis, 3])
            at = np.rint((position[axis] - first) / step).astype(np.int32)
            index.append(np.clip(at, 0, source.shape[axis] - 1))
        return np.asarray(self.label.array[tuple(index)])

    def _tissues(self, grid: Grid, seed: int, position: Floats, ids: NDArray[Any]) -> NDArray[np.uint8]:
        habitus = Habitus.draw(generator(seed, "habitus"))
        canvas = FittedCanvas(
            grid=grid,
            position=self.fit.to_template(position),
            wobble=Field.draw(generator(seed, "rough"), self._whole(), _ROUGH_STEP, 4).on(grid),
            codes=np.zeros(grid.shape, dtype=np.uint8),
            # how far a voxel's place in the map is from its place in the subject, and some roughness
            reach=15.0 + float(np.abs(position - _positions(grid)).max()),
            fit=self.fit,
            patient=position,
        )
        fine = Field.draw(generator(seed, "fine"), self._whole(), _FINE_STEP, 3).on(grid)
        brain = None if self._brain is None else self._brain.at(position)
        paint_surround(canvas, Vary(seed, habitus), fine, set(self.label.structures), brain)
        for organ in self._organs:
            where = np.nonzero(ids == self.label.structures[organ.name])
            if len(where[0]):
                points = np.stack([position[a][where] for a in range(3)], axis=1).astype(np.float64)
                noise = np.stack([channel[where] for channel in fine], axis=1)
                canvas.codes[where] = interior(organ.name, self._inside(organ, points, noise, seed))
        return canvas.codes

    def _inside(self, organ: Organ, points: NDArray[np.float64], noise: Floats, seed: int) -> Inside:
        index = ((points - organ.origin) / organ.spacing).T
        depth = ndimage.map_coordinates(organ.depth, index, order=1, mode="nearest", output=np.float32)
        middle = float(np.interp(organ.centre[2], self.fit.z, self.fit.middle))
        centre = organ.centre.copy()
        if is_lung(organ.name):
            centre[0] = middle
        return Inside(
            position=points,
            depth=depth,
            noise=noise,
            centre=centre,
            size=organ.size,
            front=organ.front,
            back=organ.back,
            side=1 if organ.centre[0] > middle else -1,
            draw=generator(seed, "inside", organ.name).random(4),
        )

    def _whole(self) -> Grid:
        return grid_over(self.box, (10.0, 10.0, 10.0))


def render_map(
    anatomy: MapAnatomy,
    seed: int,
    modality: str,
    scanner: Scanner = MAP_SCANNER,
    tracer: str = "FDG",
    breathing_mm: float = 0.0,
    deform: float = 0.0,
) -> tuple[Volume, Volume]:
    """One scan of one subject on a label map's anatomy.

    Args:
        anatomy: of the map.
        seed: subject seed: habitus, tissue values, textures, noise, deformation.
        modality: ct, mr or pet.
        scanner: physical settings; each scanner has its own grid over the field of view.
        tracer: FDG or PSMA.
        breathing_mm: PET organs lie this many millimetres higher at the diaphragm than their label.
        deform: strength of the seeded deformation; 0 keeps the map as it is.

    Returns:
        The image (HU | a.u. | SUV) and the label map (ids of the map's structures) on one grid.

    Raises:
        UserError: an unknown tracer.
    """
    grid = scanner.grid(modality, anatomy.box)
    codes, ids = anatomy.scan(grid, seed, breathing_mm if modality == "pet" else 0.0, deform)
    image = _SIMULATE[modality](seed, codes, grid, scanner, tissue_table(tracer), anatomy.box)
    return Volume(image, grid), Volume(ids, grid)


def _field_of_view(small: LabelMap, label: LabelMap, extent_mm: tuple[float, float, float]) -> Extent:
    """Around the organs with room for what lies about them, inside the map and the extent."""
    trunk = _trunk_only(small.structures)
    low, high = _span(small.array > 0, small.grid)
    core = np.isin(small.array, list(trunk.values()))
    near = _span(core, small.grid) if core.any() else (low, high)
    middle = (near[0] + near[1]) / 2
    first, last = label.grid.to_world(label.grid.corners())[[0, -1]]
    half = np.asarray(label.grid.spacing) / 2
    first, last = first - half, last + half
    size = np.asarray(extent_mm, dtype=float)
    start, stop = middle - size / 2, middle + size / 2
    # the back of the body is thicker than its front
    start[1], stop[1] = start[1] - 8, stop[1] - 8
    stop[2] = high[2] + 40
    start[2] = max(stop[2] - size[2], low[2] - 120)
    start, stop = np.maximum(start, first), np.minimum(stop, last)
    return tuple(float(v) for v in start), tuple(float(v) for v in stop)  # type: ignore[return-value]


def _positions(grid: Grid) -> Floats:
    """(3, X, Y, Z) patient millimetres of the voxels of an axis-aligned grid."""
    axes = [grid.affine[a, 3] + grid.affine[a, a] * np.arange(grid.shape[a]) for a in range(3)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def _trunk_only(structures: Mapping[str, int]) -> dict[str, int]:
    return {n: i for n, i in structures.items() if n != "brain" and not is_gland(n)}


def _span(mask: NDArray[np.bool_], grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    box = [np.flatnonzero(mask.any(axis=tuple(o for o in range(3) if o != axis))) for axis in range(3)]
    ends = grid.to_world(np.array([[b[0] for b in box], [b[-1] for b in box]], dtype=float))
    return ends[0], ends[1]
