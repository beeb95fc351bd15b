"""NIfTI files: read with every check a silent mistake would need, written whole or not at all."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import GRID_TOLERANCE_MM, Grid, Volume
from umdseg.data.io.header import axis_codes, damaged, is_gzip, read_header, stored_bytes, where_of
from umdseg.errors import UserError
from umdseg.files import atomic

# float32 holds whole numbers exactly up to here
_EXACT = 2**24


def read_grid(path: Path | str, subject: str | None = None) -> Grid:
    """Grid of a file, from its header alone (voxels stay on disk).

    Raises:
        UserError: file missing, not NIfTI or too small for its header; not 3-D; spacing not positive or
            not in mm; an affine without a known orientation, with shear, or contradicting itself.
    """
    return read_header(path, subject)[1]


def read_image(path: Path | str, subject: str | None = None) -> Volume:
    """Read one scan.

    Returns:
        float32 voxels (X, Y, Z) in the file's own axis order; the grid maps them to RAS+ millimetres.

    Raises:
        UserError: as `read_grid`, or a truncated file, NaN or infinite voxels, all voxels equal.
    """
    where = where_of(path, subject)
    header, grid = read_header(path, subject)
    stored = stored_voxels(header, path, where).reshape(grid.shape)
    if stored.dtype.kind in "iu" and stored.dtype.itemsize > 2:
        largest = max(abs(int(stored.min())), abs(int(stored.max())))
        if largest > _EXACT:
            what = f"image has whole numbers up to {largest}, which float32 cannot hold"
            raise UserError(what, where=where, expected="HU, SUV or a.u.; was this a label or damaged?")
    with np.errstate(over="ignore"):
        array = stored.astype(np.float32)
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise UserError(
            f"image has {bad} voxels that are NaN or infinite", where=where, expected="finite voxel values"
        )
    if array.min() == array.max():
        what = f"every voxel of the image is {array.flat[0]:g}"
        raise UserError(what, where=where, expected="an image with some contrast")
    return Volume(array, grid)


def read_label(
    path: Path | str,
    image_grid: Grid | None = None,
    allowed_ids: Collection[int] | None = None,
    subject: str | None = None,
    others: Iterable[Grid] = (),
) -> Volume:
    """Read a label map.

    Args:
        path: NIfTI file.
        image_grid: grid the label must lie on.
        allowed_ids: ids the label may hold besides 0; None allows any.
        subject: named in errors.
        others: grids of the subject's other scans; a label shared by a pair may lie on one of them.

    Returns:
        int16 voxels (X, Y, Z).

    Raises:
        UserError: as `read_grid`, or a truncated file, fractions, ids outside `allowed_ids`, or a grid
            further than 0.1 mm from the image's and from all others.
    """
    where = where_of(path, subject)
    header, grid = read_header(path, subject)
    if image_grid is not None and not lies_on(grid, image_grid, others):
        raise grid_mismatch(grid, image_grid, where, "its image")
    array = stored_voxels(header, path, where).reshape(grid.shape)
    whole = np.round(array)
    # a NaN fails the comparison too
    if array.dtype.kind == "f" and not bool((np.abs(array - whole) <= 1e-3).all()):
        what = "label has values that are not whole numbers"
        raise UserError(what, where=where, expected="integer structure ids")
    _check_ids(np.unique(whole), allowed_ids, where)
    return Volume(whole.astype(np.int16), grid)


def write_volume(volume: Volume, path: Path | str) -> None:
    """Write a volume as NIfTI (float32, uint8 for masks, int16 or int32), atomically."""
    import nibabel as nib

    array = volume.array
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    elif array.dtype.kind == "f":
        array = array.astype(np.float32)
    elif array.dtype.kind in "iu" and array.dtype.itemsize > 2:
        fits = array.size == 0 or (int(array.min()) >= -(2**15) and int(array.max()) < 2**15)
        array = array.astype(np.int16 if fits else np.int32)
    image = nib.Nifti1Image(array, volume.grid.affine)  # type: ignore[no-untyped-call]
    # both forms, so that readers that prefer either see the same space; 1 = scanner coordinates
    image.set_sform(volume.grid.affine, code=1)  # type: ignore[no-untyped-call]
    image.set_qform(volume.grid.affine, code=1)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    with atomic(path) as temporary:
        nib.save(image, temporary)


def lies_on(label: Grid, own: Grid, others: Iterable[Grid] = ()) -> bool:
    """Whether a label lies on the grid of its image or, shared by a pair, on that of another scan."""
    # `others` may read headers as it goes, so it is looked at last
    return label.same_as(own, GRID_TOLERANCE_MM) or any(label.same_as(g, GRID_TOLERANCE_MM) for g in others)


def grid_mismatch(grid: Grid, other: Grid, where: object, named: object) -> UserError:
    """The error for a label whose voxels do not lie on its image's."""
    both = f"    label: {_describe(grid)}\n    image: {_describe(other)}"
    return UserError(
        f"label lies on another grid than {named}\n{both}",
        where=where,
        expected=f"same shape and affine (corners within {GRID_TOLERANCE_MM} mm) as its image, "
        "or as another scan of the subject (a label shared by the pair)",
    )


def stored_voxels(header: Any, path: Path | str, where: str) -> NDArray[Any]:
    """Voxels of a file whose header has been read, scaled as it says, in the shape stored.

    Args:
        header: of `umdseg.data.io.header.read_header`.
        path: the file.
        where: file and subject, for errors.

    Raises:
        UserError: the file is truncated or damaged.
    """
    import nibabel as nib

    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    try:
        if not is_gzip(path):
            return np.asarray(kind.from_filename(path).dataobj)
        with gzip.open(path) as stream:
            content = stream.read(stored_bytes(header))
            # nibabel stops before the checksum at the end; read to it, or damage passes for voxels
            while stream.read(1 << 20):
                pass
        return np.asarray(kind.from_bytes(content).dataobj)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise damaged(error, where) from error


def _check_ids(found: NDArray[Any], allowed: Collection[int] | None, where: str) -> None:
    if allowed is None:
        wrong = [int(i) for i in found if not 0 <= i < 2**15]
        expected = "ids from 0 to 32767"
    else:
        wrong = [int(i) for i in found if int(i) != 0 and int(i) not in allowed]
        expected = f"0 (background) and {', '.join(str(i) for i in sorted(allowed))}; found {_short(found)}"
    if wrong:
        what = f"label holds ids that no structure has: {_short(wrong)}"
        raise UserError(what, where=where, expected=expected)


def _short(values: Any) -> str:
    shown = [str(int(v)) for v in values[:20]]
    return ", ".join(shown) + (", ..." if len(values) > 20 else "")


def _describe(grid: Grid) -> str:
    spacing = " x ".join(f"{s:.3g}" for s in grid.spacing)
    origin = ", ".join(f"{v:.1f}" for v in grid.affine[:3, 3])
    return f"shape {grid.shape}, axes {axis_codes(grid.affine)}, {spacing} mm, first voxel at ({origin}) mm"
