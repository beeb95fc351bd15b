"""Where each slice of a series lies: one per file, or per frame of a multi-frame object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umdseg.data.io.dicom.instance import numbers, read_header, sop_uid, text
from umdseg.errors import UserError

# what tells apart the images of one place: echoes, time points, b-values, phases
DISTINCT = (
    "EchoTime",
    "DiffusionBValue",
    "TemporalPositionIdentifier",
    "FrameReferenceTime",
    "TriggerTime",
    "NominalPercentageOfCardiacPhase",
    "AcquisitionNumber",
    "AcquisitionTime",
)


@dataclass(frozen=True)
class Slice:
    """One image plane (DICOM PS3.3 C.7.6.2; C.7.6.16.2 for frames of multi-frame objects).

    Attributes:
        file: where its pixels are.
        index: frame in the file, None for a single-frame object.
        key: SOPInstanceUID (the path where there is none), with "#number" (from 1) for a frame.
        position: first voxel's centre, LPS millimetres.
        rows: unit vector along a row (column index grows), LPS.
        columns: unit vector along a column (row index grows), LPS.
        spacing: millimetres between rows and between columns.
        shape: rows and columns.
        thickness: nominal slice thickness in millimetres, 0 if not given.
        slope: rescale slope.
        intercept: rescale intercept.
        rescaled: whether the header gives slope and intercept.
        padding: lowest and highest stored value that stand for no measurement.
        extra: values that may tell this slice from another at its place.
    """

    file: Path
    index: int | None
    key: str
    position: tuple[float, ...]
    rows: tuple[float, ...]
    columns: tuple[float, ...]
    spacing: tuple[float, ...]
    shape: tuple[int, int]
    thickness: float
    slope: float
    intercept: float
    rescaled: bool
    padding: tuple[float, float] | None
    extra: tuple[str, ...]


def slices_of(file: Path) -> list[Slice]:
    """Slices of one file, in its own order.

    Raises:
        UserError: the file holds no grey-scale image with a place in patient space.
    """
    header = read_header(file)
    if header is None or not numbers(header, "Rows") or not numbers(header, "Columns"):
        raise UserError("file holds no image", where=file, expected="CT, PET or MR image objects")
    _check_grey(header, file)
    frames = int((numbers(header, "NumberOfFrames") or [1])[0])
    items = header.get("PerFrameFunctionalGroupsSequence")
    if items is None and frames == 1:
        return [_slice(header, [header], file, None)]
    if items is None or len(items) != frames:
        raise UserError(
            f"multi-frame object of {frames} frames without a place in patient space for each",
            where=file,
            expected="single-frame images, or enhanced CT, PET or MR with per-frame functional groups",
        )
    shared = header.get("SharedFunctionalGroupsSequence") or [None]
    return [_slice(header, [item, shared[0]], file, i) for i, item in enumerate(items)]


def _slice(header: Any, groups: Sequence[Any], file: Path, index: int | None) -> Slice:
    def value(sequence: str, keyword: str, count: int) -> tuple[float, ...]:
        found = next(_values(groups, sequence, keyword, index is not None), [])
        return tuple(found) if len(found) == count else ()

    position = value("PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = value("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = value("PixelMeasuresSequence", "PixelSpacing", 2)
    needed = {
        "Image Position (Patient) (0020,0032)": position,
        "Image Orientation (Patient) (0020,0037)": orientation,
        "Pixel Spacing (0028,0030)": spacing,
    }
    absent = [name for name, found in needed.items() if not found]
    if absent or min(spacing) <= 0:
        what = f"image without {' and '.join(absent)}" if absent else f"Pixel Spacing is {list(spacing)} mm"
        raise UserError(what, where=file, expected="an image with its place in patient space")
    slope = value("PixelValueTransformationSequence", "RescaleSlope", 1)
    intercept = value("PixelValueTransformationSequence", "RescaleIntercept", 1)
    thickness = value("PixelMeasuresSequence", "SliceThickness", 1)
    return Slice(
        file,
        index,
        (sop_uid(header) or str(file)) + (f"#{index + 1}" if index is not None else ""),
        position,
        orientation[:3],
        orientation[3:],
        spacing,
        (int(numbers(header, "Rows")[0]), int(numbers(header, "Columns")[0])),
        thickness[0] if thickness else 0.0,
        slope[0] if slope else 1.0,
        intercept[0] if intercept else 0.0,
        bool(slope and intercept),
        _padding(header),
        tuple(text(header, keyword) for keyword in DISTINCT),
    )


def _values(groups: Sequence[Any], sequence: str, keyword: str, enhanced: bool) -> Iterator[list[float]]:
    """A value's numbers where it is given: in the header itself, or in a frame's, then the shared group."""
    for group in groups:
        if group is None:
            continue
        for item in group.get(sequence) or [] if enhanced else [group]:
            found = numbers(item, keyword)
            if found:
                yield found


def _check_grey(header: Any, file: Path) -> None:
    kind = text(header, "PhotometricInterpretation") or "MONOCHROME2"
    samples = (numbers(header, "SamplesPerPixel") or [1])[0]
    if kind != "MONOCHROME2" or samples != 1:
        # MONOCHROME1 is shown inverted; whether the values are too, nobody can tell
        what = f"image is {kind} with {samples:g} values per pixel"
        raise UserError(
            what, where=file, expected="grey values, MONOCHROME2 (not a screen capture or fused image)"
        )


def _padding(header: Any) -> tuple[float, float] | None:
    """Pixel Padding Value, up to Pixel Padding Range Limit (DICOM PS3.3 C.7.5.1.1.2)."""
    first = numbers(header, "PixelPaddingValue")
    if len(first) != 1:
        return None
    both = [first[0], (numbers(header, "PixelPaddingRangeLimit") or first)[0]]
    if numbers(header, "PixelRepresentation") == [1]:
        # written as unsigned by some exporters, although the pixels are signed
        top = 2 ** (numbers(header, "BitsAllocated") or [16.0])[0]
        both = [value - top if value >= top / 2 else value for value in both]
    return min(both), max(both)
