"""Stored pixels -> values: decoded, rescaled, padding replaced."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.io.dicom.instance import WHOLE, pydicom, quiet
from umdseg.data.io.dicom.slices import Slice
from umdseg.errors import UserError


def values(one: Slice, padded: float) -> NDArray[np.float32]:
    """Values of one slice, (rows, columns) float32: stored value * slope + intercept (DICOM PS3.3 C.11.1).

    Args:
        one: the slice.
        padded: value for pixels that the header declares padding.

    Raises:
        UserError: a decoder is not installed, or the pixels are damaged.
    """
    stored = _decode(one)
    if stored.shape != one.shape:
        raise UserError(
            f"pixels have shape {stored.shape}, header says {one.shape}", where=one.file, expected=WHOLE
        )
    # in double precision: PET slopes have more digits than a float32 product keeps
    array = (stored.astype(np.float64) * one.slope + one.intercept).astype(np.float32)
    if one.padding is not None:
        array[(stored >= one.padding[0]) & (stored <= one.padding[1])] = padded
    return array


def _decode(one: Slice) -> NDArray[Any]:
    from pydicom.pixels.utils import pixel_array

    try:
        with quiet():
            return pixel_array(one.file, index=one.index if one.index is not None else 0)
    except Exception as error:  # each decoder has its own kinds
        if "missing dependencies" in str(error) or isinstance(error, NotImplementedError):
            name = pydicom().dcmread(one.file, stop_before_pixels=True).file_meta.TransferSyntaxUID.name
            raise UserError(
                f"no decoder for pixels compressed as {name}",
                where=one.file,
                expected="pip install pylibjpeg pylibjpeg-openjpeg (JPEG 2000) or pylibjpeg-libjpeg (JPEG)",
            ) from error
        what = f"pixels cannot be decoded ({type(error).__name__})"
        raise UserError(what, where=one.file, expected=WHOLE) from error
