"""What can be checked of a dataset before any voxel is read: files, headers, grids, patient space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from umdseg.data.geometry import Grid
from umdseg.data.io.nifti import grid_mismatch, lies_on, read_grid
from umdseg.errors import UserError
from umdseg.vocabulary import Scan, Subject


def check_subjects(subjects: Sequence[Subject]) -> None:
    """Check files and headers of every scan; voxels are checked when they are read.

    Raises:
        UserError: no subjects; one subject twice; a missing file or unusable header; a label on no
            grid of its subject's scans; scans of one subject that share no place in patient space.
    """
    if not subjects:
        raise UserError("the dataset has no subjects", expected="at least one subject with one scan")
    seen: dict[str, str] = {}
    for subject in subjects:
        if subject.id in seen:
            raise UserError(
                f"subject {subject.id} appears twice (splits '{seen[subject.id]}' and '{subject.split}')",
                expected="every subject once, in one split",
            )
        seen[subject.id] = subject.split
        grids = {scan.image: read_grid(scan.image, subject.id) for scan in subject.scans.values()}
        for scan in subject.scans.values():
            _check_label(scan, grids, subject.id)
        _check_space(grids, subject.id)


def _check_label(scan: Scan, grids: Mapping[Path, Grid], subject: str) -> None:
    if scan.label is None:
        return
    label, own = read_grid(scan.label, subject), grids[scan.image]
    if not lies_on(label, own, grids.values()):
        raise grid_mismatch(label, own, f"{scan.label} (subject {subject})", scan.image)


def _check_space(grids: Mapping[Path, Grid], subject: str) -> None:
    boxes = {path: grid.to_world(grid.corners()) for path, grid in grids.items()}
    paths = list(boxes)
    for i, first in enumerate(paths):
        for second in paths[i + 1 :]:
            a, b = boxes[first], boxes[second]
            if (a.max(axis=0) < b.min(axis=0)).any() or (b.max(axis=0) < a.min(axis=0)).any():
                raise UserError(
                    f"scans of subject {subject} share no place in patient space",
                    where=f"{first} and {second}",
                    expected="scans of one person in one patient space (RAS+ millimetres); check the affines",
                )
