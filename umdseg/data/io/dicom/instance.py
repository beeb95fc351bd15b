"""One DICOM file: its header without pixels, or why it is not one."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from umdseg.errors import UserError

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
UNDEFINED_LENGTH = 0xFFFFFFFF
WHOLE = "a complete DICOM file; copy it again"


def pydicom() -> Any:
    """The package, or what to install.

    Raises:
        UserError: the extra `dicom` is not installed.
    """
    try:
        import pydicom as package
    except ImportError as error:
        what = "reading DICOM needs the package pydicom"
        raise UserError(what, expected="pip install umdseg[dicom]") from error
    return package


@contextmanager
def quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Keep pydicom's remarks on single values to itself: they may repeat a value that identifies a person."""
    package = pydicom()
    log = logging.getLogger("pydicom")
    up = log.propagate
    log.propagate = False
    try:
        with warnings.catch_warnings(record=True) as remarks, package.config.disable_value_validation():
            warnings.simplefilter("always")
            yield remarks
    finally:
        log.propagate = up


def read_header(path: Path, tags: Sequence[str] | None = None) -> Any:
    """Header of one file, without its pixels (pydicom Dataset).

    Args:
        path: the file; without the preamble of DICOM PS3.10 it is read if it starts like DICOM.
        tags: keywords to read (pixels are then not looked for); None reads all.

    Returns:
        The Dataset, or None if the file is not DICOM or is a DICOMDIR.

    Raises:
        UserError: the file is DICOM but unreadable, truncated, or lacks its pixels.
    """
    package = pydicom()
    try:
        with path.open("rb") as stream, quiet() as remarks:
            start = stream.read(132)
            standard = start[128:] == b"DICM"
            # files of before PS3.10 begin with a tag of group 0002 or 0008 instead of a preamble
            if not standard and not (start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00"):
                return None
            stream.seek(0)
            chosen = {"specific_tags": list(tags)} if tags else {}
            header = package.dcmread(stream, stop_before_pixels=True, force=not standard, **chosen)
            if sop_class(header) == MEDIA_DIRECTORY or (not standard and not sop_class(header)):
                return None
            if any("end of file" in str(remark.message).lower() for remark in remarks) or _cut(header):
                raise UserError("DICOM file is truncated in its header", where=path, expected=WHOLE)
            if tags is None:
                _check_pixels(header, stream.tell(), os.fstat(stream.fileno()).st_size, path)
            return header
    except UserError:
        raise
    except Exception as error:  # pydicom raises many kinds for a damaged file
        what = f"DICOM file cannot be read ({type(error).__name__})"
        raise UserError(what, where=path, expected=WHOLE) from error


def sop_uid(header: Any) -> str:
    """SOPInstanceUID, from the file meta information where the data set has none."""
    return _uid(header, "SOPInstanceUID", "MediaStorageSOPInstanceUID")


def sop_class(header: Any) -> str:
    """SOPClassUID, from the file meta information where the data set has none."""
    return _uid(header, "SOPClassUID", "MediaStorageSOPClassUID")


def get(header: Any, keyword: str) -> Any:
    """A value, None if it is absent, empty, or malformed for its type (a weight of "70 kg")."""
    # values are converted when they are first asked for
    try:
        with quiet():
            value = header.get(keyword)
    except (ValueError, TypeError, NotImplementedError, OverflowError):
        return None
    return None if value is None or value == "" else value


def text(header: Any, keyword: str) -> str:
    """A value as stripped text, "" if it is absent."""
    value = get(header, keyword)
    return "" if value is None else str(value).strip()


def numbers(header: Any, keyword: str) -> list[float]:
    """A value as finite numbers, [] if it is absent or one is not."""
    value = get(header, keyword)
    items = [value] if isinstance(value, str | int | float) else value or []
    try:
        found = [float(item) for item in items]
    except (TypeError, ValueError):
        return []
    return found if all(map(math.isfinite, found)) else []


def words(header: Any, keyword: str) -> list[str]:
    """A value of several words (ImageType, CorrectedImage), upper case, [] if absent."""
    value = get(header, keyword)
    items = [value] if isinstance(value, str) else value or []
    return [str(item).strip().upper() for item in items if str(item).strip()]


def _uid(header: Any, keyword: str, meta: str) -> str:
    return text(header, keyword) or text(getattr(header, "file_meta", {}), meta)


def _cut(header: Any) -> bool:
    """Whether the last value is shorter than it says (pydicom takes what is there)."""
    if not len(header):
        return True
    last = header.get_item(max(header.keys()))
    raw = last.value if isinstance(last, pydicom().dataelem.RawDataElement) else None
    return raw is not None and last.length != UNDEFINED_LENGTH and len(raw) < last.length


def _check_pixels(header: Any, offset: int, size: int, path: Path) -> None:
    """Refuse an image whose file ends before its pixels do (pydicom would say so only when decoding)."""
    syntax = text(getattr(header, "file_meta", {}), "TransferSyntaxUID")
    if "Rows" not in header or syntax == DEFLATED:
        return
    # behind the element's tag and length, which take 8 bytes, or 12 with explicit VR
    left = size - offset - (8 if syntax in ("", IMPLICIT) else 12)
    if left <= 0:
        raise UserError("image file is truncated or has no pixel data", where=path, expected=WHOLE)
    sizes = [numbers(header, k) for k in ("Rows", "Columns", "BitsAllocated")]
    if not all(sizes) or (syntax and pydicom().uid.UID(syntax).is_compressed):
        return
    frames = (numbers(header, "NumberOfFrames") or [1.0])[0]
    samples = (numbers(header, "SamplesPerPixel") or [1.0])[0]
    needed = int(sizes[0][0] * sizes[1][0] * sizes[2][0] * frames * samples) // 8
    if left < needed:
        what = f"image file is truncated: {left} bytes of pixel data, {needed} needed"
        raise UserError(what, where=path, expected=WHOLE)
