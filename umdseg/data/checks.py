"""What can be checked of a dataset before any voxel is read: files, headers, grids, patient space."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from umdseg.data.geometry import Grid
from umdseg.data.io.header import check_complete, read_header
from umdseg.data.io.nifti import grid_mismatch, lies_on
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.progress import track
from umdseg.vocabulary import Scan, Subject

# headers lie on network file systems too, where waiting is what takes time
_THREADS = min(16, 4 * (os.cpu_count() or 1))


@dataclass(frozen=True)
class Headers:
    """What the headers of one subject say.

    Attributes:
        subject: whose.
        grids: file -> grid, for every image and label with a usable header.
        findings: what is wrong with them.
    """

    subject: Subject
    grids: Mapping[Path, Grid]
    findings: tuple[Finding, ...]


def check_subjects(subjects: Sequence[Subject]) -> None:
    """Check files and headers of every scan; voxels are checked when they are read.

    Raises:
        UserError: no subjects; one subject twice; a missing file or unusable header; a label on no
            grid of its subject's scans; scans of one subject that share no place in patient space.
            Of several problems the first, with how many more there are.
    """
    findings = [finding for finding in find_repeats(subjects) if finding.level == "refuse"]
    if not findings:
        findings = [finding for headers in read_all(subjects) for finding in headers.findings]
    if findings:
        first, more = findings[0], len(findings) - 1
        others = f"\n  and {more} more {'problem' if more == 1 else 'problems'}: umdseg check lists them all"
        what = first.what + (others if more else "")
        expected = first.expected or None
        raise UserError(what, where=first.where or None, expected=expected, nearest=first.nearest)


def find_problems(subject: Subject) -> list[Finding]:
    """Everything wrong with the files and headers of one subject."""
    return list(read_headers(subject).findings)


def read_all(subjects: Sequence[Subject]) -> Iterator[Headers]:
    """Headers of many subjects, in their order, with progress."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from track(pool.map(read_headers, subjects), "read headers", "subject", total=len(subjects))


def read_headers(subject: Subject) -> Headers:
    """Grids of one subject's files, and what is wrong with them."""
    grids: dict[Path, Grid] = {}
    found: list[Finding] = []
    paths = {p: None for scan in subject.scans.values() for p in (scan.image, scan.label) if p}
    for path in paths:
        try:
            header, grid = read_header(path, subject.id)
            check_complete(path, header, subject.id)
            grids[path] = grid
        except UserError as error:
            found.append(Finding.of(error))
    images = {scan.image: grids[scan.image] for scan in subject.scans.values() if scan.image in grids}
    found += _same_files(subject)
    for scan in subject.scans.values():
        found += _label(scan, grids, images, subject.id)
    found += _space(images, subject.id)
    return Headers(subject, grids, tuple(found))


def find_repeats(subjects: Sequence[Subject]) -> Iterator[Finding]:
    """Nobody at all, one subject twice, one person in two splits, images that two subjects share."""
    if not subjects:
        yield Finding("refuse", "the dataset has no subjects", "", "at least one subject with one scan")
    seen: dict[str, Subject] = {}
    owner: dict[Path, Subject] = {}
    people: dict[str, Subject] = {}
    for subject in subjects:
        person = people.setdefault(subject.patient or subject.id, subject)
        if person.split != subject.split and person.id != subject.id:
            what = f"subjects {person.id} and {subject.id} are one patient"
            what += f" in splits '{person.split}' and '{subject.split}'"
            yield Finding(
                "refuse", what, f"patient {subject.patient}", "all studies of a person in one split"
            )
        if subject.id in seen:
            splits = f"splits '{seen[subject.id].split}' and '{subject.split}'"
            what = f"subject {subject.id} appears twice ({splits})"
            yield Finding("refuse", what, "", "every subject once, in one split")
        seen[subject.id] = subject
        for scan in subject.scans.values():
            # a link to an image is that image
            other = owner.setdefault(scan.image.resolve(), subject)
            if other.id != subject.id:
                leaks = other.split != subject.split
                what = f"subjects {other.id} and {subject.id} share an image"
                what += f" across splits '{other.split}' and '{subject.split}'" if leaks else ""
                expected = "scans of one person in one split"
                yield Finding("refuse" if leaks else "warn", what, str(scan.image), expected)


def _same_files(subject: Subject) -> Iterator[Finding]:
    seen: dict[Path, str] = {}
    for modality, scan in subject.scans.items():
        for path, role in ((scan.image, f"{modality} image"), (scan.label, f"{modality} label")):
            # a label may be shared by the scans of a pair
            other = seen.setdefault(path, role) if path else role
            if other != role and not (other.endswith("label") and role.endswith("label")):
                what = f"one file is {other} and {role} of subject {subject.id}"
                yield Finding("refuse", what, str(path), "a file of its own for every image and label")


def _label(
    scan: Scan, grids: Mapping[Path, Grid], images: Mapping[Path, Grid], subject: str
) -> Iterator[Finding]:
    # a file without a grid has been told already
    if scan.label is None or scan.label not in grids or scan.image not in grids:
        return
    label, own = grids[scan.label], grids[scan.image]
    if not lies_on(label, own, images.values()):
        yield Finding.of(grid_mismatch(label, own, f"{scan.label} (subject {subject})", scan.image))


def _space(grids: Mapping[Path, Grid], subject: str) -> Iterator[Finding]:
    boxes = {path: grid.to_world(grid.corners()) for path, grid in grids.items()}
    paths = list(boxes)
    for i, first in enumerate(paths):
        for second in paths[i + 1 :]:
            a, b = boxes[first], boxes[second]
            if (a.max(axis=0) < b.min(axis=0)).any() or (b.max(axis=0) < a.min(axis=0)).any():
                yield Finding(
                    "refuse",
                    f"scans of subject {subject} share no place in patient space",
                    f"{first} and {second}",
                    "scans of one person in one patient space (RAS+ millimetres); check the affines",
                )
