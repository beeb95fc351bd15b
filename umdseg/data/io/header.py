"""The NIfTI header: a grid that every reader understands alike, or a refusal with numbers."""

from __future__ import annotations

import errno
import gzip
import logging
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid
from umdseg.errors import UserError

# deflate never shrinks more than 1032 : 1, so no honest file holds more voxels than this
_DEFLATE = 1032
# NIfTI-1 standard, xyzt_units & 7
_LENGTHS = {0: "mm", 1: "metres", 2: "mm", 3: "micrometres"}
_AXES_OFF = 1e-3
_SPACING_OFF = 0.01


def where_of(path: Path | str, subject: str | None) -> str:
    """File and subject, as errors name them."""
    return f"{path}" + (f" (subject {subject})" if subject else "")


def read_header(path: Path | str, subject: str | None = None) -> tuple[Any, Grid]:
    """The header as nibabel knows it, and the grid; voxels stay on disk.

    Raises:
        UserError: no file, not readable, or not one-file NIfTI; not one 3-D volume of real numbers; more
            voxels than the file can hold; lengths that are not positive or not in mm; no affine, or
            affines that contradict each other.
    """
    import nibabel as nib

    path, where = Path(path), where_of(path, subject)
    _check_file(path, where)
    raw = _start(path, where)
    if raw[344:348] == b"n+1\0":
        kind, raw = nib.Nifti1Header, raw[:348]
    elif raw[4:8] == b"n+2\0" and len(raw) == 540:
        kind = nib.Nifti2Header
    else:
        raise _other_format(path, raw, where)
    header: Any = kind(raw, check=False)  # type: ignore[no-untyped-call]
    # before nibabel repairs what it finds odd
    spacing = _spacing(header, where)
    try:
        shape = _shape(header, where)
        header.get_slope_inter()
        # without its log: what matters is refused here, by name and with numbers
        header.check_fix(logger=logging.Logger("nifti", logging.CRITICAL + 1), error_level=40)
        affine = header.get_best_affine()
    except UserError:
        raise
    # KeyError: a code of no voxel type
    except (nib.spatialimages.HeaderDataError, ValueError, KeyError) as error:
        raise UserError(
            f"header is invalid: {_reason(error)}", where=where, expected="NIfTI-1 or NIfTI-2"
        ) from error
    _check_size(header, shape, path, where)
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise UserError(
            "header has neither sform nor qform, so left and right are not known",
            where=where,
            expected="an affine to patient space (sform_code or qform_code > 0)",
        )
    grid = Grid(shape, _affine(affine, where))
    _check_forms(header, grid, spacing, where)
    return header, grid


def is_gzip(path: Path | str) -> bool:
    """Whether a file's name says that it is compressed."""
    return str(path).lower().endswith(".gz")


def stored_bytes(header: Any) -> int:
    """Bytes an uncompressed file of this header has up to its last voxel."""
    voxels = int(np.prod([int(n) for n in header.get_data_shape()], dtype=object))
    return int(header.get_data_offset()) + voxels * int(header.get_data_dtype().itemsize)


def check_complete(path: Path | str, header: Any, subject: str | None = None) -> None:
    """Refuse a compressed file that ends too early, mostly by its last four bytes alone.

    gzip ends with the length of what it holds, modulo 2^32 (RFC 1952); a file whose end says otherwise
    is read through before it is refused.

    Raises:
        UserError: the file is truncated or damaged. (`read_header` has already measured plain files.)
    """
    if not is_gzip(path):
        return
    needed, where = stored_bytes(header), where_of(path, subject)
    try:
        with open(path, "rb") as stream:
            stream.seek(-4, 2)
            if int.from_bytes(stream.read(4), "little") == needed % 2**32:
                return
        with gzip.open(path) as stream:
            held = sum(len(part) for part in iter(lambda: stream.read(1 << 20), b""))
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(error, where) from error
    if held < needed:
        raise damaged(f"{held:,} of {needed:,} bytes", where)


def damaged(why: object, where: str) -> UserError:
    """The error for a file that ends too early or fails its checksum."""
    what = f"file is truncated or damaged: {why}"
    return UserError(what, where=where, expected="a complete file; copy it again")


def axis_codes(affine: NDArray[np.float64]) -> str:
    """Axis codes such as RAS."""
    import nibabel as nib

    return "".join(str(c) for c in nib.aff2axcodes(affine))  # type: ignore[no-untyped-call]


def _check_file(path: Path, where: str) -> None:
    if path.is_file():
        return
    what, expected = "file is missing", "an existing NIfTI file (.nii or .nii.gz)"
    if path.is_dir():
        what = "a folder, not a file"
    elif path.is_symlink():
        what = "file is missing: the link leads nowhere"
        try:
            path.resolve(strict=True)
        # Python 3.13 raises OSError where earlier ones raise RuntimeError
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) or error.errno == errno.ELOOP:
                what = "file is missing: the link leads back to itself"
    raise UserError(what, where=where, expected=expected)


def _reason(error: Exception) -> str:
    return f"voxels of unknown type {error}" if isinstance(error, KeyError) else str(error)


def _start(path: Path, where: str) -> bytes:
    try:
        with gzip.open(path) if is_gzip(path) else open(path, "rb") as stream:
            return stream.read(540)
    except (OSError, EOFError, zlib.error) as error:
        what = f"file cannot be read: {error.strerror if isinstance(error, PermissionError) else error}"
        raise UserError(
            what, where=where, expected="a complete NIfTI file (.nii, or .nii.gz by gzip)"
        ) from error


def _other_format(path: Path, raw: bytes, where: str) -> UserError:
    """Says what the file is, where that is known."""
    import nibabel as nib

    expected = "NIfTI-1 or NIfTI-2 in one file (.nii or .nii.gz)"
    told = "its first bytes are not those of a header"
    if not raw:
        told = "it is empty"
    elif raw[:2] == b"\x1f\x8b":
        told = "it is compressed with gzip, but not named .gz" if not is_gzip(path) else "compressed twice"
    else:
        # nibabel has no common class for what it cannot read
        with suppress(Exception):
            told = f"it is {type(nib.load(path)).__name__}"
    return UserError(f"not a readable NIfTI file: {told}", where=where, expected=expected)


def _spacing(header: Any, where: str) -> NDArray[np.float64]:
    spacing = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    # a 2-D volume has fewer; it is refused for its shape
    used = spacing[: max(int(header["dim"][0]), 1)]
    if not (np.isfinite(used).all() and (used > 0).all()):
        what = f"voxel spacing in the header is {spacing.tolist()}"
        raise UserError(what, where=where, expected="three positive lengths in mm")
    unit = int(header["xyzt_units"]) & 7
    if _LENGTHS.get(unit) != "mm":
        named = _LENGTHS.get(unit, f"of unknown code {unit}")
        what = f"lengths in the header are {named} (xyzt_units), spacing {_short(spacing)}"
        raise UserError(
            what, where=where, expected="millimetres: scale affine and pixdim, set the unit to mm"
        )
    return spacing


def _shape(header: Any, where: str) -> tuple[int, int, int]:
    full = tuple(int(n) for n in header.get_data_shape())
    shape, dtype = full, header.get_data_dtype()
    if len(shape) > 3 and all(n == 1 for n in shape[3:]):
        shape = shape[:3]
    # a single slice has no third dimension to segment
    if len(shape) != 3 or min(shape) < 2 or dtype.fields or dtype.kind not in "iuf":
        kind = "colours" if dtype.fields else str(dtype)
        what = f"volume has shape {full} and type {kind}"
        raise UserError(what, where=where, expected="one 3-D volume of real numbers per file")
    return shape[0], shape[1], shape[2]


def _check_size(header: Any, shape: tuple[int, int, int], path: Path, where: str) -> None:
    needed, size = stored_bytes(header), path.stat().st_size
    if needed > size * (_DEFLATE if is_gzip(path) else 1):
        compressed = "; no compression shrinks that far" if is_gzip(path) else ""
        what = f"header promises {needed:,} bytes (shape {shape}) but the file has {size:,}{compressed}"
        raise UserError(f"file is truncated: {what}", where=where, expected="a complete file; copy it again")


def _affine(affine: Any, where: str) -> NDArray[np.float64]:
    matrix = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(matrix).all():
        raise UserError("affine holds NaN or infinity", where=where, expected="a finite 4 x 4 affine")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if (lengths < 1e-6).any():
        what = f"affine is singular: voxel spacing {lengths.tolist()}"
        raise UserError(what, where=where, expected="three non-zero lengths in mm")
    axes = matrix[:3, :3] / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > _AXES_OFF:
        raise UserError(
            "affine is sheared: its axes are not at right angles",
            where=where,
            expected="a regular grid; resample the scan (gantry tilt, affine registration) first",
        )
    return matrix


def _check_forms(header: Any, grid: Grid, spacing: NDArray[np.float64], where: str) -> None:
    """Readers differ in which of sform, qform and pixdim they believe; so they must agree."""
    own = np.array(grid.spacing)
    if (np.abs(spacing / own - 1) > _SPACING_OFF).any():
        what = f"voxel spacing is {_short(spacing)} mm by pixdim but {_short(own)} mm by the affine"
        raise UserError(what, where=where, expected="one spacing; write the file again with the right one")
    if not (int(header["sform_code"]) and int(header["qform_code"])):
        return
    try:
        other = Grid(grid.shape, np.asarray(header.get_qform(), dtype=np.float64))
    # nibabel's error for a quaternion that is none
    except ValueError as error:
        raise UserError(f"qform is invalid: {error}", where=where, expected="qform_code 0") from error
    corners = grid.corners()
    apart = np.linalg.norm(grid.to_world(corners) - other.to_world(corners), axis=1).max()
    # less than half a voxel is rounding of the quaternion, and cannot mirror anything
    if not apart <= 0.5 * own.min():
        axes = f"axes {axis_codes(grid.affine)} and {axis_codes(other.affine)}"
        raise UserError(
            f"sform and qform place the volume up to {apart:.1f} mm apart ({axes})",
            where=where,
            expected="one patient space; set the code of the wrong one to 0",
        )


def _short(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
