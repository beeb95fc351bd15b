"""RTSTRUCT: closed planar contours -> masks on the grid of the scan they were drawn on.

DICOM PS3.3 C.8.8.6 (ROI Contour Module). A voxel belongs to a region when its centre lies within an odd
number of the region's contours on its slice, so an inner contour is a hole, with or without a keyhole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid
from umdseg.data.io.dicom.regions import Mask, need, read_dataset
from umdseg.data.verdict import Finding
from umdseg.errors import UserError

Array = NDArray[np.float64]

# CLOSEDPLANAR_XOR: the same contours with the even-odd rule spelt out (CP-1926)
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
# share of the slice spacing a contour may lie off its slice: rounding, then a warning, then a refusal
_ROUNDING, _NEAREST = 0.05, 0.25


@dataclass(frozen=True)
class Roi:
    """One ROI of a structure set.

    Attributes:
        name: ROI name.
        contours: corner points (N, 3) of each closed contour, patient millimetres (RAS+).
        others: contours of other kinds, counted by kind.
        degenerate: closed contours of fewer than three points, left out.
    """

    name: str
    contours: tuple[Array, ...]
    others: tuple[tuple[str, int], ...] = ()
    degenerate: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The ROI's name."""
        return (self.name,)

    def mask(self, grid: Grid) -> tuple[Mask | None, tuple[Finding, ...]]:
        """Voxels of `grid`, whose third axis counts slices, with their centre inside.

        Raises:
            UserError: contours that are not closed and planar, not parallel to the slices, or between
                slices by more than a quarter of their spacing.
        """
        if self.others:
            what = ", ".join(f"{count} {kind}" for kind, count in self.others)
            raise self._error(f"ROI has contours of the kind {what}", "CLOSED_PLANAR contours only")
        findings: list[Finding] = []
        if self.degenerate:
            findings.append(self._warn(f"{self.degenerate} contours have fewer than three points; left out"))
        slices = self._by_slice(grid, findings)
        mask = _fill(slices, grid.shape)
        if mask is None:
            findings.append(self._warn("ROI holds no voxel centre of the scan"))
        return mask, tuple(findings)

    def _by_slice(self, grid: Grid, findings: list[Finding]) -> dict[int, list[Array]]:
        """In-plane corner points (voxels) of the contours of each slice."""
        step = grid.spacing[2]
        planes: dict[float, list[Array]] = {}
        outside = 0
        for contour in self.contours:
            index = grid.to_index(contour)
            depth = float(np.median(index[:, 2]))
            lean = float(np.ptp(index[:, 2])) * step
            if lean > max(_ROUNDING * step, 0.1):
                what = f"ROI has a contour that is not parallel to the slices (depth varies by {lean:.2f} mm)"
                raise self._error(what, "contours drawn on the slices of the scan")
            corner = index[:, :2]
            ends = np.array(grid.shape[:2]) - 0.5
            inside = bool((corner.min(axis=0) <= ends).all() and (corner.max(axis=0) >= -0.5).all())
            if not (inside and -0.5 <= depth < grid.shape[2] - 0.5):
                outside += 1
                continue
            planes.setdefault(round(depth, 4), []).append(corner)
        if outside:
            findings.append(self._warn(f"{outside} of {len(self.contours)} contours lie outside the scan"))
        return self._nearest(planes, step, findings)

    def _nearest(
        self, planes: dict[float, list[Array]], step: float, findings: list[Finding]
    ) -> dict[int, list[Array]]:
        off = {depth: abs(depth - round(depth)) for depth in planes}
        worst = max(off.values(), default=0.0)
        between = sum(far > _ROUNDING for far in off.values())
        told = f"contours in {between} of {len(planes)} planes lie up to {worst * step:.2f} mm between slices"
        told += f" that are {step:.2f} mm apart"
        if worst > _NEAREST:
            raise self._error(told, "contours drawn on the slices of the scan they refer to")
        if between:
            findings.append(self._warn(f"{told}; moved to the nearest slice"))
        once = {depth: _once(contours) for depth, contours in planes.items()}
        repeated = sum(len(planes[depth]) - len(once[depth]) for depth in planes)
        if repeated:
            findings.append(self._warn(f"{repeated} contours are repetitions; each is counted once"))
        slices: dict[int, list[Array]] = {}
        # the plane nearest to a slice comes first and is the one that counts
        for depth in sorted(planes, key=lambda depth: off[depth]):
            slices.setdefault(round(depth), once[depth])
        if len(slices) < len(planes):
            dropped = len(planes) - len(slices)
            findings.append(self._warn(f"{dropped} contour planes share a slice with a nearer one; left out"))
        gaps = set(np.diff(sorted(slices)).tolist())
        if len(slices) > 2 and len(gaps) == 1 and (every := gaps.pop()) > 1:
            findings.append(self._warn(f"contours lie on one of {every} slices; those between stay empty"))
        return slices

    def _warn(self, what: str) -> Finding:
        return Finding("warn", what, f"ROI '{self.name}'")

    def _error(self, what: str, expected: str) -> UserError:
        return UserError(what, where=f"ROI '{self.name}'", expected=expected)


def roi_names(item: Any) -> tuple[str, ...]:
    """The name of one item of the Structure Set ROI Sequence."""
    return (str(item.get("ROIName") or "").strip(),)


def read_rois(path: Path) -> tuple[Roi, ...]:
    """All ROIs of a structure set, in its own order.

    Raises:
        UserError: the file cannot be read, or a contour's coordinates are no triples of numbers.
    """
    dataset = read_dataset(path)
    contours: dict[int, list[Any]] = {}
    for item in dataset.get("ROIContourSequence") or []:
        contours.setdefault(int(item.ReferencedROINumber), []).extend(item.get("ContourSequence") or [])
    return tuple(
        _roi(roi_names(item)[0], contours.get(int(item.ROINumber), []), path)
        for item in dataset.get("StructureSetROISequence") or []
    )


def _roi(name: str, items: Sequence[Any], path: Path) -> Roi:
    closed: list[Array] = []
    others: Counter[str] = Counter()
    degenerate = 0
    for item in items:
        kind = str(item.get("ContourGeometricType") or "unknown")
        if kind not in _CLOSED:
            others[kind] += 1
            continue
        try:
            points = np.array(item.ContourData, dtype=np.float64).reshape(-1, 3)
        except (AttributeError, TypeError, ValueError) as error:
            where = f"{path}, ROI '{name}'"
            what = "contour data are no list of points"
            raise UserError(what, where=where, expected="x, y, z of every point in mm") from error
        if len(points) < 3:
            degenerate += 1
        else:
            closed.append(points * (-1.0, -1.0, 1.0))
    return Roi(name, tuple(closed), tuple(sorted(others.items())), degenerate)


def _once(contours: Sequence[Array]) -> list[Array]:
    """Without exact repetitions, which would undo each other."""
    return list({contour.tobytes(): contour for contour in contours}.values())


def _fill(slices: dict[int, list[Array]], shape: tuple[int, int, int]) -> Mask | None:
    if not slices:
        return None
    points = np.concatenate([contour for own in slices.values() for contour in own])
    low = np.clip(np.floor(points.min(axis=0)).astype(int), 0, np.array(shape[:2]) - 1)
    high = np.clip(np.ceil(points.max(axis=0)).astype(int), 0, np.array(shape[:2]) - 1) + 1
    first, last = min(slices), max(slices)
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    array = np.zeros((*size, last + 1 - first), dtype=bool)
    inside = need("skimage.measure").grid_points_in_poly
    for z, contours in slices.items():
        for contour in contours:
            array[:, :, z - first] ^= inside(size, contour - low)
    box = (slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])), slice(first, last + 1))
    return Mask(box, array) if array.any() else None
