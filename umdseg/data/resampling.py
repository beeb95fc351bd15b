"""Scans and label maps on another grid, through SimpleITK."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid, Volume

# numbers sampled at a time for label maps
_CHUNK = 1 << 24
# a structure is too thin for a grid when less than this share of its volume would be left
_KEPT = 0.7


def resample_image(volume: Volume, target: Grid, outside: float | None = None) -> NDArray[np.float32]:
    """Trilinear resampling of a scan.

    Args:
        volume: (X, Y, Z) on any grid.
        target: wanted grid.
        outside: value beyond the field of view; None repeats the nearest border voxel.

    Returns:
        (X, Y, Z) float32 on `target`.
    """
    import SimpleITK as sitk

    array = np.asarray(volume.array, dtype=np.float32)
    if volume.grid.same_as(target, 1e-4):
        return np.array(array, order="C")
    grid = volume.grid
    if outside is None:
        array, grid = _widened(array, grid, target)
    return _sample(_image(array, grid), target, sitk.sitkLinear, outside)


def resample_labels(labels: Volume, target: Grid) -> NDArray[np.int16]:
    """A label map on another grid, without holes.

    Per structure the share of each target voxel that it fills is interpolated linearly (sampled at the
    source's own step where the target is coarser). A voxel that structures fill by half or more goes to
    the one that fills most of it, so touching structures leave no gap between them. A structure that
    would keep less than 70 % of its volume, because it is too small or thin for the target, takes the voxels
    it fills most, until it has its volume again (at least one voxel). Each structure is worked on in its own
    box, so memory does not grow with their number.

    Args:
        labels: (X, Y, Z) ids >= 0; 0 is background.
        target: wanted grid.

    Returns:
        (X, Y, Z) int16 on `target`; 0 outside the field of view.
    """
    from scipy.ndimage import find_objects

    array = np.asarray(labels.array).astype(np.int16, copy=False)
    if labels.grid.same_as(target):
        return array.copy()
    found = np.zeros(target.shape, dtype=np.int16)
    best, total = (np.zeros(target.shape, dtype=np.float32) for _ in range(2))
    boxes = find_objects(array.astype(np.int32))
    # large ones first: what is thin lies in or on something larger, and takes its voxels
    for index in np.argsort(-np.bincount(array.ravel(), minlength=len(boxes) + 1)[1:], kind="stable"):
        box = boxes[index]
        moved = None if box is None else _share(array, labels.grid, int(index) + 1, box, target)
        if moved is None:
            continue
        place, share = moved
        thin = _thin(share)
        higher = share > best[place] if thin is None else thin
        found[place][higher] = index + 1
        best[place][higher] = 1 if thin is not None else share[higher]
        total[place] += share if thin is None else thin
    found[total < 0.5 - 1e-4] = 0
    return found


def _widened(
    array: NDArray[np.float32], grid: Grid, target: Grid, most: int = 8
) -> tuple[NDArray[np.float32], Grid]:
    """The border repeated outwards as far as the target reaches, at most `most` voxels."""
    index = grid.to_index(target.to_world(target.corners()))
    low = np.clip(np.ceil(-0.5 - index.min(axis=0)), 0, most).astype(int)
    high = np.clip(np.ceil(index.max(axis=0) + 0.5 - grid.shape), 0, most).astype(int)
    if not (low.any() or high.any()):
        return array, grid
    stop = grid.shape + high
    start = (-int(low[0]), -int(low[1]), -int(low[2]))
    wider = grid.crop(start, (int(stop[0]), int(stop[1]), int(stop[2])))
    return np.pad(array, list(zip(low, high, strict=True)), mode="edge"), wider


def _thin(share: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """The voxels of a structure too thin for the grid: those it fills most; None if it is not too thin."""
    wanted = float(share.sum())
    if wanted == 0 or np.count_nonzero(share >= 0.5) >= _KEPT * wanted:
        return None
    count = min(max(round(wanted), 1), int(np.count_nonzero(share)))
    return np.asarray(share >= np.partition(share.ravel(), -count)[-count])


def _share(
    array: NDArray[np.int16], source: Grid, number: int, box: tuple[slice, ...], target: Grid
) -> tuple[tuple[slice, ...], NDArray[np.float32]] | None:
    """Where in the target a structure can lie, and the share of those voxels that it fills."""
    import SimpleITK as sitk

    # one voxel more on each side, so that shares fall off as they do in the whole map
    low = [max(part.start - 1, 0) for part in box]
    high = [min(part.stop + 1, size) for part, size in zip(box, array.shape, strict=True)]
    own = source.crop((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    mask = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] == number
    ends = [(-0.5, n - 0.5) for n in own.shape]
    faces = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1).T
    index = target.to_index(own.to_world(faces))
    start = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
    stop = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, target.shape)
    if (start >= stop).any():
        return None
    image = _image(mask.astype(np.uint8), own)
    factors = _finer(own, target)
    step = max(_CHUNK // int(np.prod((stop - start)[:2]) * np.prod(factors)), 1)
    parts = []
    for z in range(int(start[2]), int(stop[2]), step):
        piece = target.crop(
            (int(start[0]), int(start[1]), z), (int(stop[0]), int(stop[1]), min(z + step, int(stop[2])))
        )
        fine = _sample(image, _refined(piece, factors), sitk.sitkLinear, 0.0)
        shape = [n for pair in zip(piece.shape, factors, strict=True) for n in pair]
        parts.append(fine.reshape(shape).mean(axis=(1, 3, 5)))
    place = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return place, np.concatenate(parts, axis=2)


def _finer(source: Grid, target: Grid) -> tuple[int, int, int]:
    """Samples per target voxel and axis that a source of finer step needs."""
    axes = np.abs(np.linalg.inv(source.affine[:3, :3]) @ target.affine[:3, :3])
    x, y, z = np.maximum(np.round(axes.max(axis=0)), 1).astype(int)
    return int(x), int(y), int(z)


def _refined(grid: Grid, factors: tuple[int, int, int]) -> Grid:
    shift = np.eye(4)
    shift[:3, 3] = 0.5 / np.array(factors) - 0.5
    shift[:3, :3] = np.diag(1.0 / np.array(factors))
    x, y, z = (n * f for n, f in zip(grid.shape, factors, strict=True))
    return Grid((x, y, z), grid.affine @ shift)


def _image(array: NDArray[Any], grid: Grid) -> Any:
    """A SimpleITK image in the same millimetres (RAS+: both sides of a resampling are, so none is turned)."""
    import SimpleITK as sitk

    image: Any = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(tuple(float(v) for v in grid.affine[:3, 3]))
    image.SetDirection(tuple(float(v) for v in (grid.affine[:3, :3] / grid.spacing).ravel()))
    return image


def _sample(image: Any, target: Grid, interpolator: int, outside: float | None) -> NDArray[np.float32]:
    import SimpleITK as sitk

    work: Any = sitk.ResampleImageFilter()  # type: ignore[no-untyped-call]
    work.SetInterpolator(interpolator)
    work.SetOutputPixelType(sitk.sitkFloat32)
    work.SetSize(target.shape)
    work.SetOutputSpacing(target.spacing)
    work.SetOutputOrigin(tuple(float(v) for v in target.affine[:3, 3]))
    work.SetOutputDirection(tuple(float(v) for v in (target.affine[:3, :3] / target.spacing).ravel()))
    if outside is None:
        work.SetUseNearestNeighborExtrapolator(True)
    else:
        work.SetDefaultPixelValue(float(outside))
    moved = work.Execute(image)
    # a copy: the view dies with its image
    return np.array(sitk.GetArrayViewFromImage(moved).transpose(2, 1, 0), dtype=np.float32, order="C")
