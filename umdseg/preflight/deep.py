"""The voxels: read once, every scan and label of every subject."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from umdseg.data.checks import Headers
from umdseg.data.dataset import PairedDataset
from umdseg.data.geometry import Grid, Volume
from umdseg.data.intensity import verdicts
from umdseg.data.io.nifti import read_image, read_label
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.preflight import space
from umdseg.preflight.check import Check, count
from umdseg.preflight.files import files_in
from umdseg.progress import track
from umdseg.vocabulary import Modality, Scan, Subject


@dataclass
class _Seen:
    """What is put together over all subjects."""

    voxels: list[Finding] = field(default_factory=list)
    labels: list[Finding] = field(default_factory=list)
    space: list[Finding] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    ids: set[int] = field(default_factory=set)
    content: dict[str, tuple[str, Path]] = field(default_factory=dict)
    images: int = 0
    maps: int = 0


def voxels(dataset: PairedDataset, headers: Sequence[Headers], pictures: Path | None = None) -> list[Check]:
    """Read all voxels, one subject at a time; scans with unusable headers are left out.

    Args:
        dataset: subjects and structures.
        headers: their grids.
        pictures: folder for one picture per subject; None makes none.
    """
    seen = _Seen()
    awaited = files_in(dataset.subjects) - files_in(one.subject for one in headers)
    if awaited:
        what = f"{count(awaited, 'file')} not made yet, so not read"
        expected = "files that are there: umdseg prepare SOURCE ROOT OUT makes them, or the first run does"
        seen.voxels.append(Finding("warn", what, dataset.name, expected))
    for one in track(headers, "read voxels", "subject"):
        _subject(one, dataset.structures, seen)
        if pictures is not None and not one.findings:
            _picture(one.subject, pictures, dataset.structures, seen)
    unused = [name for name, number in dataset.structures.items() if number not in seen.ids]
    if unused and seen.maps:
        what = f"no label holds {', '.join(unused[:8])}" + (", ..." if len(unused) > 8 else "")
        seen.labels.append(Finding("warn", what, dataset.name, "structures that are labelled"))
    share = f"common field of view {min(seen.shares):.0%} or more" if seen.shares else "no pairs"
    return [
        Check("voxels", f"{count(seen.images, 'image')} read", tuple(seen.voxels)),
        Check("labels", f"{count(seen.maps, 'label map')} read", tuple(seen.labels)),
        Check("space", share, tuple(seen.space)),
    ]


def _subject(headers: Headers, structures: Mapping[str, int], seen: _Seen) -> None:
    subject, grids = headers.subject, headers.grids
    volumes: dict[Modality, Volume] = {}
    for modality, scan in subject.scans.items():
        if scan.image not in grids:
            continue
        try:
            volumes[modality] = read_image(scan.image, subject.id)
        except UserError as error:
            seen.voxels.append(Finding.of(error))
            continue
        seen.images += 1
        where = f"{scan.image} (subject {subject.id})"
        seen.voxels += [
            f for f in verdicts(volumes[modality], modality, scan.units, where) if f.level != "pass"
        ]
        seen.voxels += _copies(volumes[modality], scan, subject, seen)
    read: dict[Path, Volume | None] = {}
    for modality, scan in subject.scans.items():
        label = _label(scan, subject, structures, grids, read, seen)
        if label is not None and modality in volumes:
            where = f"{scan.label} (subject {subject.id})"
            seen.space += space.labelled(label, volumes[modality], modality, where)
    if len(volumes) > 1:
        seen.shares.append(space.common_share({m: v.grid for m, v in volumes.items()}))
        seen.space += space.compare(volumes, f"subject {subject.id}")


def _label(
    scan: Scan,
    subject: Subject,
    structures: Mapping[str, int],
    grids: Mapping[Path, Grid],
    read: dict[Path, Volume | None],
    seen: _Seen,
) -> Volume | None:
    """A scan's label; what is wrong with a map shared by a pair is told once."""
    path = scan.label
    if path is None or path not in grids or path in read:
        return read.get(path) if path is not None else None
    where = f"{path} (subject {subject.id})"
    read[path] = None
    try:
        label = read_label(path, allowed_ids=structures.values(), subject=subject.id)
    except UserError as error:
        seen.labels.append(Finding.of(error))
        return None
    read[path] = label
    seen.maps += 1
    found = {int(i) for i in np.unique(label.array)} - {0}
    seen.ids |= found
    if not found:
        seen.labels.append(
            Finding("warn", "label map has no foreground", where, "a structure in every label")
        )
    seen.labels += space.sides(label, structures, where)
    return label


def _copies(volume: Volume, scan: Scan, subject: Subject, seen: _Seen) -> Iterator[Finding]:
    digest = hashlib.sha256(np.ascontiguousarray(volume.array).data).hexdigest()
    other, path = seen.content.setdefault(digest, (subject.id, scan.image))
    if path != scan.image:
        whose = (
            f"subjects {other} and {subject.id}" if other != subject.id else f"two scans of subject {other}"
        )
        what = f"{whose} have the same voxels"
        yield Finding(
            "warn", what, f"{path} and {scan.image}", "every image once: a copy leaks between splits"
        )


def _picture(subject: Subject, folder: Path, structures: Mapping[str, int], seen: _Seen) -> None:
    from umdseg.data.qc import picture

    try:
        picture(subject, folder / f"{subject.id}.png", structures)
    except UserError as error:
        seen.voxels.append(Finding.of(error, "warn"))
