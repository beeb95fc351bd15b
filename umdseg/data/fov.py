"""The reference grid of a subject and the common field of view of its scans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import GRID_TOLERANCE_MM, Array, Grid, canonical_grid
from umdseg.data.io.nifti import read_grid
from umdseg.errors import UserError
from umdseg.vocabulary import Millimetres, Modality, Subject


@dataclass(frozen=True)
class Reference:
    """Whose grid a subject's clicks, paired patches and common scores are taken on.

    Attributes:
        policy: ct, pet, mr (where a subject lacks it: ct, mr, pet, in this order), or card.
        spacing: millimetres of the model's card; needed for `card`.
    """

    policy: str = "ct"
    spacing: Millimetres | None = None

    def modality(self, subject: Subject) -> Modality:
        """Whose label is the reference; with `card` that of ct, mr, pet which the subject has."""
        return subject.reference(self.policy)

    def grid(self, subject: Subject, grids: Mapping[Modality, Grid] | None = None) -> Grid:
        """The subject's reference grid.

        Args:
            subject: whose scans.
            grids: their grids, where the caller has read them already.

        Raises:
            UserError: a header cannot be read; with `card`, the scans share no place, or the model's card
                has no spacing.
        """
        found = scan_grids(subject) if grids is None else grids
        if self.policy != "card":
            return found[self.modality(subject)]
        if self.spacing is None:
            raise UserError(
                "the model takes scans as they are, so its card has no spacing for a grid",
                where="data.reference",
                expected="ct, pet or mr",
            )
        box = common_box(found.values())
        if box is None:
            expected = "scans of one patient space (one frame of reference)"
            raise UserError("the scans share no place", where=f"subject {subject.id}", expected=expected)
        low, high = box
        # one voxel as large as the box; the card's grid covers it
        affine = np.diag([*(high - low), 1.0])
        affine[:3, 3] = (low + high) / 2
        return canonical_grid(Grid((1, 1, 1), affine), self.spacing)


ON_CT = Reference()


def scan_grids(subject: Subject) -> dict[Modality, Grid]:
    """Grids of all scans, from their headers."""
    return {modality: read_grid(scan.image, subject.id) for modality, scan in subject.scans.items()}


@dataclass(frozen=True)
class CommonField:
    """What all scans of a subject saw, on its reference grid.

    Attributes:
        grid: the part of the reference grid that holds the common field.
        inside: (X, Y, Z) voxels of `grid` whose centre lies in every scan's field of view.
    """

    grid: Grid
    inside: NDArray[np.bool_]

    def share_of(self, scan: Grid) -> float:
        """Share of a scan's field of view that the common field takes."""
        common = float(np.count_nonzero(self.inside)) * self.grid.voxel_ml
        return min(common / (float(np.prod(scan.shape)) * scan.voxel_ml), 1.0)


def common_field(reference: Grid, grids: Iterable[Grid]) -> CommonField | None:
    """The common field of view of `grids` on `reference`, cropped to it; None where there is none.

    A field of view reaches to the outer faces of the border voxels; it may be oblique.
    """
    inside = common_mask(reference, grids)
    start, stop = [], []
    for axis in range(3):
        hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        if hit.size == 0:
            return None
        start.append(int(hit[0]))
        stop.append(int(hit[-1]) + 1)
    part = inside[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]]
    grid = reference.crop((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return CommonField(grid, np.ascontiguousarray(part))


def common_mask(target: Grid, grids: Iterable[Grid]) -> NDArray[np.bool_]:
    """(X, Y, Z) voxels of `target` whose centre lies inside every grid's field of view."""
    inside = np.ones(target.shape, dtype=bool)
    for grid in grids:
        matrix = np.linalg.inv(grid.affine) @ target.affine
        for axis, (count, step) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
            index = np.full((1, 1, 1), matrix[axis, 3])
            for along, voxels in enumerate(target.shape):
                # axes that do not matter stay one voxel long: cheap where the grids are parallel
                if abs(matrix[axis, along]) * voxels > 1e-6:
                    shape = [voxels if a == along else 1 for a in range(3)]
                    index = index + (matrix[axis, along] * np.arange(voxels)).reshape(shape)
            slack = GRID_TOLERANCE_MM / step
            inside &= (index >= -0.5 - slack) & (index <= count - 0.5 + slack)
    return inside


def reaches(scan: Grid, place: Grid) -> bool:
    """Whether a scan's field of view holds the centre of any voxel of a window or slice."""
    # the middle first: windows are many, and most lie inside
    x, y, z = (count // 2 for count in place.shape)
    middle = place.crop((x, y, z), (x + 1, y + 1, z + 1))
    return any(bool(common_mask(part, [scan]).any()) for part in (middle, place))


def common_box(grids: Iterable[Grid]) -> tuple[Array, Array] | None:
    """Lower and upper corner (mm, RAS+) of the box around the common field of view; None if it is empty.

    The common field is an intersection of half-spaces, so each corner coordinate is a linear programme:
    exact for oblique grids, too.
    """
    from scipy.optimize import linprog

    rows, limits = [], []
    for grid in grids:
        inverse = np.linalg.inv(grid.affine)
        upper = np.array(grid.shape) - 0.5 - inverse[:3, 3]
        rows += [inverse[:3, :3], -inverse[:3, :3]]
        limits += [upper, 0.5 + inverse[:3, 3]]
    ends = []
    for axis in range(3):
        for sign in (1.0, -1.0):
            cost = sign * np.eye(3)[axis]
            found = linprog(cost, np.concatenate(rows), np.concatenate(limits), bounds=(None, None))
            if not found.success or found.fun is None:
                return None
            ends.append(sign * found.fun)
    return np.array(ends[0::2]), np.array(ends[1::2])
