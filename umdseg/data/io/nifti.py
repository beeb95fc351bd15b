"""NIfTI files: read with every check a silent mistake would need, written whole or not at all."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid, Volume
from umdseg.errors import UserError
from umdseg.files import atomic

GRID_TOLERANCE_MM = 0.1


def read_grid(path: Path | str, subject: str | None = None) -> Grid:
    """Grid of a file, from its header alone (voxels stay on disk).

    Raises:
        UserError: file missing or not NIfTI, not 3-D, zero spacing, or an affine without a known
            orientation or with shear.
    """
    return _grid(_open(path, subject), _where(path, subject))


def read_image(path: Path | str, subject: str | None = None) -> Volume:
    """Read one scan.

    Returns:
        float32 voxels (X, Y, Z) in the file's own axis order; the grid maps them to RAS+ millimetres.

    Raises:
        UserError: as `read_grid`, or a truncated file, NaN or infinite voxels, all voxels equal.
    """
    where = _where(path, subject)
    image = _open(path, subject)
    grid = _grid(image, where)
    array = _voxels(image, path, where).reshape(grid.shape).astype(np.float32)
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
    where = _where(path, subject)
    image = _open(path, subject)
    grid = _grid(image, where)
    if image_grid is not None and not lies_on(grid, image_grid, others):
        raise grid_mismatch(grid, image_grid, where, "its image")
    array = _voxels(image, path, where).reshape(grid.shape)
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


def _open(path: Path | str, subject: str | None) -> Any:
    import nibabel as nib

    where = _where(path, subject)
    if not Path(path).is_file():
        raise UserError("file is missing", where=where, expected="an existing NIfTI file (.nii or .nii.gz)")
    try:
        image = nib.load(path)
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        what = f"not a readable NIfTI file: {error}"
        raise UserError(what, where=where, expected="NIfTI-1 or NIfTI-2") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        what = f"file cannot be read: {error}"
        raise UserError(what, where=where, expected="a complete NIfTI file") from error
    if not isinstance(image, nib.Nifti1Image):
        raise UserError(f"file is {type(image).__name__}", where=where, expected="NIfTI (.nii or .nii.gz)")
    return image


def _voxels(image: Any, path: Path | str, where: str) -> NDArray[Any]:
    try:
        if str(path).endswith(".gz"):
            # nibabel stops before the checksum at the end; read to it, or damage passes for voxels
            with gzip.open(path) as stream:
                image = type(image).from_bytes(stream.read())
        return np.asarray(image.dataobj)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        what = f"file is truncated or damaged: {error}"
        raise UserError(what, where=where, expected="a complete file; copy it again") from error


def _grid(image: Any, where: str) -> Grid:
    shape = tuple(int(n) for n in image.shape)
    if len(shape) > 3 and all(n == 1 for n in shape[3:]):
        shape = shape[:3]
    if len(shape) != 3 or 0 in shape or image.get_data_dtype().fields:
        what = f"volume has shape {tuple(image.shape)} and type {image.get_data_dtype()}"
        raise UserError(what, where=where, expected="one 3-D volume of numbers per file")
    with image.file_map["image"].get_prepare_fileobj("rb") as stream:
        # as stored: the loaded header has had zeros replaced by ones
        header = type(image.header).from_fileobj(stream, check=False)
    spacing = np.asarray(header["pixdim"][1:4], dtype=float)
    if not (np.isfinite(spacing).all() and (spacing != 0).all()):
        what = f"voxel spacing in the header is {spacing.tolist()}"
        raise UserError(what, where=where, expected="three non-zero lengths in mm")
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise UserError(
            "header has neither sform nor qform, so left and right are not known",
            where=where,
            expected="an affine to patient space (sform_code or qform_code > 0)",
        )
    return Grid((shape[0], shape[1], shape[2]), _affine(image.affine, where))


def _affine(affine: Any, where: str) -> NDArray[np.float64]:
    matrix = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(matrix).all():
        raise UserError("affine holds NaN or infinity", where=where, expected="a finite 4 x 4 affine")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if (lengths < 1e-6).any():
        what = f"affine is singular: voxel spacing {lengths.tolist()}"
        raise UserError(what, where=where, expected="three non-zero lengths in mm")
    axes = matrix[:3, :3] / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise UserError(
            "affine is sheared: its axes are not at right angles",
            where=where,
            expected="a regular grid; resample the scan (gantry tilt, affine registration) first",
        )
    return matrix


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
    import nibabel as nib

    codes = "".join(str(c) for c in nib.aff2axcodes(grid.affine))  # type: ignore[no-untyped-call]
    spacing = " x ".join(f"{s:.3g}" for s in grid.spacing)
    origin = ", ".join(f"{v:.1f}" for v in grid.affine[:3, 3])
    return f"shape {grid.shape}, axes {codes}, {spacing} mm, first voxel at ({origin}) mm"


def _where(path: Path | str, subject: str | None) -> str:
    return f"{path}" + (f" (subject {subject})" if subject else "")
