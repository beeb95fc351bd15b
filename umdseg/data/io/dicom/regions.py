"""What RTSTRUCT and DICOM-SEG have in common: named regions that can be put onto a scan's grid."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid
from umdseg.data.io.dicom.instance import WHOLE, pydicom, quiet, read_header, text
from umdseg.data.verdict import Finding
from umdseg.errors import UserError

KINDS = ("RTSTRUCT", "SEG")
# PS3.3 C.8.8.5, C.8.20.2, C.12.1.1: all that is needed before contours and pixels are
_HEADS = (
    "Modality",
    "FrameOfReferenceUID",
    "SOPInstanceUID",
    "ReferencedFrameOfReferenceSequence",
    "StructureSetROISequence",
    "StructureSetDate",
    "StructureSetTime",
    "ContentDate",
    "ContentTime",
    "ReferencedSeriesSequence",
    "SegmentSequence",
)


@dataclass(frozen=True)
class Mask:
    """A region on a grid: the voxels `array` (bool) of the part `box` of the grid; all others are outside."""

    box: tuple[slice, slice, slice]
    array: NDArray[np.bool_]


class Region(Protocol):
    """One ROI or segment.

    Attributes:
        names: what it is called, the name its author gave first.
    """

    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102

    def mask(self, grid: Grid) -> tuple[Mask | None, tuple[Finding, ...]]:
        """The region on `grid` (None where it has no voxel) and what is worth a warning."""
        ...


@dataclass(frozen=True)
class LabelFile:
    """One RTSTRUCT or SEG instance, before its contours or pixels are read.

    Attributes:
        path: the file.
        kind: RTSTRUCT or SEG.
        uid: SOPInstanceUID.
        time: date and time it was made, only to sort by.
        names: names of its regions, as `Region.names`.
        series: SeriesInstanceUIDs it was drawn on.
        instances: SOPInstanceUIDs it was drawn on.
        frames: FrameOfReferenceUIDs it lies in.
    """

    path: Path
    kind: str
    uid: str
    time: str
    names: tuple[tuple[str, ...], ...]
    series: frozenset[str]
    instances: frozenset[str]
    frames: frozenset[str]


def inspect(path: Path) -> LabelFile:
    """Read what a label object is about.

    Raises:
        UserError: the file is neither RTSTRUCT nor SEG, or cannot be read.
    """
    from umdseg.data.io.dicom.rtstruct import roi_names
    from umdseg.data.io.dicom.seg import segment_names

    head = read_header(path, _HEADS)
    kind = text(head, "Modality").upper() if head is not None else ""
    if kind not in KINDS:
        raise UserError("file holds no labels", where=path, expected=" or ".join(KINDS))
    names = [roi_names(roi) for roi in head.get("StructureSetROISequence") or []]
    names += [segment_names(segment) for segment in head.get("SegmentSequence") or []]
    dates = ("StructureSetDate", "StructureSetTime", "ContentDate", "ContentTime")
    series, instances, frames = _references(head)
    return LabelFile(
        path=path,
        kind=kind,
        uid=text(head, "SOPInstanceUID"),
        time=" ".join(text(head, tag) for tag in dates),
        names=tuple(names),
        series=series,
        instances=instances,
        frames=frames,
    )


def read_regions(path: Path, kind: str, grid: Grid) -> tuple[Region, ...]:
    """All regions of one label object, in its own order.

    Raises:
        UserError: the object is damaged.
    """
    from umdseg.data.io.dicom.rtstruct import read_rois
    from umdseg.data.io.dicom.seg import read_segments

    return read_rois(path) if kind == "RTSTRUCT" else read_segments(path, grid)


def read_dataset(path: Path) -> Any:
    """A whole DICOM file (pydicom Dataset).

    Raises:
        UserError: the file cannot be read.
    """
    with quiet():
        try:
            return pydicom().dcmread(path)
        except Exception as error:  # pydicom raises many kinds for a damaged file
            what = f"label object cannot be read ({type(error).__name__})"
            raise UserError(what, where=path, expected=WHOLE) from error


def need(module: str) -> Any:
    """A module of the extra `dicom`.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        what = f"reading label objects needs the package {module.partition('.')[0]}"
        raise UserError(what, expected="pip install umdseg[dicom]") from error


def _references(head: Any) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    series: set[str] = set()
    instances: set[str] = set()
    frames = {text(head, "FrameOfReferenceUID")}
    drawn_on = list(head.get("ReferencedSeriesSequence") or [])
    for frame in head.get("ReferencedFrameOfReferenceSequence") or []:
        frames.add(text(frame, "FrameOfReferenceUID"))
        for study in frame.get("RTReferencedStudySequence") or []:
            drawn_on += study.get("RTReferencedSeriesSequence") or []
    for one in drawn_on:
        series.add(text(one, "SeriesInstanceUID"))
        for images in ("ContourImageSequence", "ReferencedInstanceSequence"):
            instances.update(text(image, "ReferencedSOPInstanceUID") for image in one.get(images) or [])
    none = {""}
    return frozenset(series - none), frozenset(instances - none), frozenset(frames - none)
