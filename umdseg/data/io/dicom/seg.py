"""DICOM-SEG: segments -> masks on the grid of the scan they were drawn on (PS3.3 C.8.20), by highdicom."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg.data.geometry import Grid, resample
from umdseg.data.io.dicom.regions import Mask, need, read_dataset
from umdseg.data.verdict import Finding
from umdseg.errors import UserError

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# of a voxel: further from a voxel centre than this, the segment lies on a grid of its own
_OFF = 0.05
# a fractional segment counts where at least half of the voxel, or even odds, are given
_FRACTION = 0.5


@dataclass(frozen=True)
class Segment:
    """One segment of a segmentation.

    Attributes:
        names: its label, then what its codes say ("Right Kidney").
        number: segment number.
        source: the highdicom Segmentation.
    """

    names: tuple[str, ...]
    number: int
    source: Any = field(repr=False)

    def mask(self, grid: Grid) -> tuple[Mask | None, tuple[Finding, ...]]:
        """Voxels of `grid` in the segment; frames that the object leaves out are empty.

        A segment on the voxels of `grid` is copied exactly, whatever part, order or direction its
        frames have. One on a grid of its own goes to the nearest voxel, with a warning.

        Raises:
            UserError: frames that make no volume.
        """
        where = f"segment '{self.names[0]}'"
        array, own = self._volume(where)
        found = np.argwhere(array)
        if not len(found):
            return None, (Finding("warn", "segment is empty", where),)
        index = grid.to_index(own.to_world(found.astype(np.float64)))
        findings = []
        inside = np.all((index > -0.5) & (index < np.array(grid.shape) - 0.5), axis=1)
        if not inside.all():
            what = f"{int((~inside).sum())} of {len(found)} voxels of the segment lie outside the scan"
            findings.append(Finding("warn", what, where))
        index = index[inside]
        off = float(np.abs(index - np.round(index)).max(initial=0.0))
        if off > _OFF or not _same_voxels(own, grid):
            told = "segment lies on a grid of its own "
            told += f"({_size(own)} mm, scan {_size(grid)} mm, up to {off:.2f} voxels off)"
            findings.append(Finding("warn", f"{told}; taken to the nearest voxels", where))
            index = _nearest(array, own, grid)
        return _mask(np.round(index).astype(int)), tuple(findings)

    def _volume(self, where: str) -> tuple[NDArray[np.bool_], Grid]:
        try:
            volume = self.source.get_volume(segment_numbers=[self.number])
        except (RuntimeError, ValueError, IndexError, AttributeError) as error:
            what = f"frames of the segment make no volume ({type(error).__name__})"
            expected = "parallel frames at regular distances"
            raise UserError(what, where=where, expected=expected) from error
        # highdicom: (slice, row, column)
        array = np.asarray(volume.array[..., 0]).transpose(2, 1, 0)
        affine = _LPS_TO_RAS @ np.asarray(volume.affine, dtype=np.float64)[:, [2, 1, 0, 3]]
        x, y, z = array.shape
        inside = array >= _FRACTION if array.dtype.kind == "f" else array > 0
        return inside, Grid((x, y, z), affine)


def segment_names(item: Any) -> tuple[str, ...]:
    """Label of one item of the Segment Sequence, then its property type with and without its modifier."""
    names = [str(item.get("SegmentLabel") or "").strip()]
    for kind in item.get("SegmentedPropertyTypeCodeSequence") or []:
        meaning = str(kind.get("CodeMeaning") or "").strip()
        for modifier in kind.get("SegmentedPropertyTypeModifierCodeSequence") or []:
            names.append(f"{modifier.get('CodeMeaning') or ''} {meaning}".strip())
        names.append(meaning)
    return tuple(dict.fromkeys(name for name in names if name)) or ("",)


def read_segments(path: Path, grid: Grid) -> tuple[Segment, ...]:
    """All segments of a segmentation, in its own order.

    Args:
        path: DICOM-SEG file, binary, fractional or labelmap.
        grid: grid of the scan it was drawn on; its slice spacing tells how far apart frames are where
            the object itself does not say.

    Raises:
        UserError: the file is no readable segmentation.
    """
    highdicom = need("highdicom")
    dataset = read_dataset(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _state_spacing(dataset, grid)
            source = highdicom.seg.Segmentation.from_dataset(dataset, copy=False)
    except (AttributeError, ValueError, KeyError, TypeError, RuntimeError) as error:
        what = f"segmentation object cannot be read ({type(error).__name__})"
        raise UserError(what, where=path, expected="a DICOM Segmentation (PS3.3 A.51)") from error
    items = dataset.get("SegmentSequence") or []
    # a labelmap may describe its background as segment 0
    numbered = [(segment_names(item), int(item.SegmentNumber)) for item in items]
    return tuple(Segment(names, number, source) for names, number in numbered if number)


def _state_spacing(dataset: Any, grid: Grid) -> None:
    for group in dataset.get("SharedFunctionalGroupsSequence") or []:
        for measures in group.get("PixelMeasuresSequence") or []:
            if not measures.get("SpacingBetweenSlices"):
                measures.SpacingBetweenSlices = grid.spacing[2]


def _same_voxels(own: Grid, grid: Grid) -> bool:
    """Whether voxels are as large, so that copying one by one leaves no holes."""
    return bool(np.allclose(sorted(own.spacing), sorted(grid.spacing), rtol=0.01))


def _nearest(array: NDArray[np.bool_], own: Grid, grid: Grid) -> NDArray[np.float64]:
    values = torch.from_numpy(array[None].astype(np.float32))
    return np.argwhere(resample(values, own, grid, "nearest", outside=0.0)[0].numpy()).astype(np.float64)


def _mask(index: NDArray[np.int_]) -> Mask | None:
    if not len(index):
        return None
    low, high = index.min(axis=0), index.max(axis=0) + 1
    array = np.zeros(tuple(high - low), dtype=bool)
    array[tuple((index - low).T)] = True
    box = (
        slice(int(low[0]), int(high[0])),
        slice(int(low[1]), int(high[1])),
        slice(int(low[2]), int(high[2])),
    )
    return Mask(box, array)


def _size(grid: Grid) -> str:
    return " × ".join(f"{length:.2f}" for length in grid.spacing)
