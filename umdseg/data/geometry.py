"""Grids in patient space (RAS+, millimetres) and resampling between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
# affines of one place differ by rounding in their files; grids closer than this are one grid
GRID_TOLERANCE_MM = 0.1


@dataclass(frozen=True)
class Grid:
    """A voxel grid: shape (X, Y, Z) and the affine from voxel index to patient millimetres (RAS+)."""

    shape: tuple[int, int, int]
    affine: Array

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths in millimetres along the grid's own axes."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    def to_world(self, index: Array) -> Array:
        """(N, 3) voxel indices -> (N, 3) patient millimetres."""
        return np.asarray(index) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, world: Array) -> Array:
        """(N, 3) patient millimetres -> (N, 3) fractional voxel indices."""
        return (np.asarray(world) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def same_as(self, other: Grid, tolerance_mm: float = GRID_TOLERANCE_MM) -> bool:
        """Whether every corner voxel of both grids lies at the same place within `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        corners = self.corners()
        distance = self.to_world(corners) - other.to_world(corners)
        return bool(np.abs(distance).max() <= tolerance_mm)

    def within(self, whole: Grid) -> tuple[slice, slice, slice] | None:
        """Where this grid lies in another one's array; None unless it is a part of that lattice."""
        start = np.round(whole.to_index(self.affine[None, :3, 3])[0]).astype(int)
        stop = start + self.shape
        if (start < 0).any() or (stop > whole.shape).any():
            return None
        x, y, z = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        part = whole.crop((x.start, y.start, z.start), (x.stop, y.stop, z.stop))
        return (x, y, z) if part.same_as(self) else None

    def corners(self) -> Array:
        """(8, 3) indices of the corner voxels."""
        ends = [(0, n - 1) for n in self.shape]
        return np.array(np.meshgrid(*ends, indexing="ij"), dtype=float).reshape(3, -1).T

    def slab(self, start: int, stop: int) -> Grid:
        """The part with `start <= z index < stop`."""
        return self.crop((0, 0, start), (*self.shape[:2], stop))

    def crop(self, start: tuple[int, int, int], stop: tuple[int, int, int]) -> Grid:
        """The part from index `start` up to but without `stop`; may reach outside the grid."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world(np.array([start], dtype=float))[0]
        shape = (stop[0] - start[0], stop[1] - start[1], stop[2] - start[2])
        return Grid(shape, affine)


@dataclass(frozen=True)
class Volume:
    """A 3-D array (X, Y, Z) on a grid."""

    array: NDArray[np.generic]
    grid: Grid


def canonical_grid(grid: Grid, spacing: tuple[float, float, float] | None, orientation: str = "RAS") -> Grid:
    """The grid of the given spacing (mm) and axis order that covers `grid`, its axes the patient's.

    The first voxel's outer faces coincide with the lower faces of the covered box, so no part of
    the field of view is lost or invented by more than one voxel.

    Args:
        grid: to be covered.
        spacing: along the new grid's own axes; None keeps the voxels of `grid`, only in another order.
        orientation: directions in which the new axes run, such as RAS or SPL.
    """
    if spacing is None:
        return reoriented(grid, orientation)
    half = np.array(grid.shape, dtype=float) - 0.5
    faces = np.array(np.meshgrid(*[(-0.5, h) for h in half], indexing="ij")).reshape(3, -1).T
    world = grid.to_world(faces)
    low, high = world.min(axis=0), world.max(axis=0)
    step = np.empty(3)
    for code, size in zip(orientation, spacing, strict=True):
        # the patient axis that the new axis runs along: right, anterior, superior
        step["RAS".find(code) if code in "RAS" else "LPI".index(code)] = size
    # the small allowance keeps float noise in the affine from adding a voxel
    count = np.maximum(np.ceil((high - low) / step - 1e-3), 1).astype(int)
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = low + step / 2
    return reoriented(Grid((int(count[0]), int(count[1]), int(count[2])), affine), orientation)


def reoriented(grid: Grid, orientation: str) -> Grid:
    """The same voxels with axes permuted and flipped so that they run nearest to `orientation`."""
    import nibabel as nib

    own = nib.orientations.io_orientation(grid.affine)  # type: ignore[no-untyped-call]
    wanted = nib.orientations.axcodes2ornt(orientation)  # type: ignore[no-untyped-call]
    change = nib.orientations.ornt_transform(own, wanted)  # type: ignore[no-untyped-call]
    affine = grid.affine @ nib.orientations.inv_ornt_aff(change, grid.shape)  # type: ignore[no-untyped-call]
    shape = [0, 0, 0]
    for old, (new, _) in enumerate(change.astype(int)):
        shape[new] = grid.shape[old]
    return Grid((shape[0], shape[1], shape[2]), affine)


def resample(
    values: torch.Tensor,
    source: Grid,
    target: Grid,
    mode: Literal["linear", "nearest"] = "linear",
    outside: float | None = None,
    slab: int = 32,
) -> torch.Tensor:
    """Resample channels from one grid to another.

    Args:
        values: (C, X, Y, Z) on `source`.
        source: grid of `values`.
        target: wanted grid.
        mode: trilinear, or nearest neighbour for label maps.
        outside: value beyond the source's field of view; None repeats the border voxel.
        slab: target slices worked on at a time (bounds memory).

    Returns:
        (C, *target.shape), same dtype as `values`.
    """
    if source.same_as(target, tolerance_mm=1e-4):
        return values.clone()
    parts = [part for _, part in resample_slabs(values, source, target, mode, outside, slab)]
    return torch.cat(parts, dim=-1)


def resample_slabs(
    values: torch.Tensor,
    source: Grid,
    target: Grid,
    mode: Literal["linear", "nearest"] = "linear",
    outside: float | None = None,
    slab: int = 32,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Like `resample`, but yield (z slice of the target, (C, X, Y, dz)) piece by piece."""
    work = values if values.is_floating_point() else values.float()
    for start in range(0, target.shape[2], slab):
        stop = min(start + slab, target.shape[2])
        part = _sample(work, source, target.slab(start, stop), mode, outside)
        yield slice(start, stop), part.to(values.dtype)


def _sample(
    values: torch.Tensor, source: Grid, target: Grid, mode: str, outside: float | None
) -> torch.Tensor:
    matrix = np.linalg.inv(source.affine) @ target.affine
    index = _source_index(torch.from_numpy(matrix).to(values.device, torch.float32), target.shape)
    size = torch.tensor(source.shape, device=values.device, dtype=torch.float32)
    # grid_sample wants the last array axis first and the range -1 ... 1 between voxel centres
    scaled = torch.where(size > 1, 2 * index / (size - 1).clamp(min=1) - 1, index * 2)
    sampled = torch.nn.functional.grid_sample(
        values[None].float(),
        scaled.flip(-1)[None],
        mode="bilinear" if mode == "linear" else "nearest",
        padding_mode="border",
        align_corners=True,
    )[0]
    if outside is None:
        return sampled
    inside = ((index >= -0.5) & (index <= size - 0.5)).all(dim=-1)
    return torch.where(inside[None], sampled, torch.full_like(sampled, outside))


def _source_index(matrix: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    axes = [torch.arange(n, device=matrix.device, dtype=torch.float32) for n in shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return grid @ matrix[:3, :3].T + matrix[:3, 3]
