"""Label objects -> one label map on the grid of the scan they were drawn on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.dicom.regions import LabelFile, Mask, Region, read_regions
from umdseg.data.prepare.grouping import Candidate, Group
from umdseg.data.prepare.rois import RoiNames
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.vocabulary import Modality

# the order in which scans are the reference of a subject, as `umdseg.vocabulary.Subject.reference`
REFERENCE: tuple[Modality, ...] = ("ct", "mr", "pet")


@dataclass(frozen=True)
class Placed:
    """Where a scan lies.

    Attributes:
        grid: its grid.
        instances: SOPInstanceUIDs of its slices.
    """

    grid: Grid
    instances: frozenset[str]


@dataclass
class Painted:
    """What one label object gave.

    Attributes:
        structures: painted.
        findings: what is worth a warning, or refused.
    """

    structures: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)


def sort_labels(
    labels: Sequence[LabelFile], groups: Sequence[Group]
) -> tuple[list[list[LabelFile]], list[Finding]]:
    """The label objects of each group, oldest first.

    An object belongs to the group that holds a series it names, else to that of its frame of reference.
    """
    sorted_in: list[list[LabelFile]] = [[] for _ in groups]
    findings = []
    for label in sorted(labels, key=lambda label: (label.time, label.uid)):
        named = [i for i, g in enumerate(groups) if any(c.series.uid in label.series for c in g.candidates)]
        homes = named or [i for i, g in enumerate(groups) if g.frame and g.frame in label.frames]
        if len(homes) == 1:
            sorted_in[homes[0]].append(label)
            continue
        what = f"{label.kind} fits {len(homes)} subjects" if homes else f"{label.kind} fits no scan"
        expected = "the series it was drawn on, or one with its frame of reference, below ROOT"
        findings.append(Finding("warn", f"{what}; left out", str(label.path), expected))
    return sorted_in, findings


def target(
    label: LabelFile, group: Group, taken: Mapping[Modality, Candidate], placed: Mapping[Modality, Placed]
) -> tuple[Modality | None, list[Finding]]:
    """The scan of a subject a label object is painted on; None if it must be left out.

    Args:
        label: the object.
        group: the subject.
        taken: chosen series.
        placed: those of them that were not refused.
    """
    by_series = next((m for m, c in taken.items() if c.series.uid in label.series), None)
    if by_series is not None:
        return _unless_refused(by_series, placed, label)
    shared = {m: len(label.instances & scan.instances) for m, scan in placed.items()}
    if any(shared.values()):
        return max(shared, key=lambda modality: shared[modality]), []
    other = next((c.modality for c in group.candidates if c.series.uid in label.series), None)
    if other is not None and other in taken:
        modality, findings = _unless_refused(other, placed, label)
        what = f"{label.kind} was drawn on a {other} series that was not taken; put onto the one that was"
        return modality, findings or [_warn(what, label)]
    fallback = next((m for m in REFERENCE if m in placed), None)
    if fallback is None:
        return None, [_warn(f"{label.kind} is left out: its subject has no usable scan", label)]
    what = f"{label.kind} names no usable series; put onto the {fallback} of its frame of reference"
    return fallback, [_warn(what, label)]


def paint(
    labels: Sequence[LabelFile], grid: Grid, names: RoiNames, ids: Mapping[str, int]
) -> tuple[Volume | None, dict[str, Painted]]:
    """One label map of all regions that are structures.

    Where structures overlap, the later in the list wins. A region that a newer object draws again counts
    as the newer one has it; regions of different names that are one structure are joined.

    Args:
        labels: the objects, oldest first.
        grid: of the scan.
        names: which region is which structure.
        ids: structure -> id.

    Returns:
        int16 ids on `grid`, None if no region has a voxel; and what each object gave, by its UID. A region
        that cannot be put onto the grid is a refusal: a map without it would say that the structure is
        not there. No `what` holds a name that a person gave.
    """
    array = np.zeros(grid.shape, dtype=np.int16)
    newest = {region[0].lower(): label.uid for label in labels for region in label.names}
    painted: dict[str, Painted] = {}
    for label in labels:
        own = painted.setdefault(label.uid, Painted())
        try:
            regions = read_regions(label.path, label.kind, grid)
        except UserError as error:
            own.findings.append(Finding.of(error))
            continue
        for region in regions:
            structure = names.structure(region.names)
            if structure is None:
                continue
            if newest.get(region.names[0].lower(), label.uid) != label.uid:
                own.findings.append(_warn(f"{structure}: drawn again in a newer object, which counts", label))
                continue
            if any(structure in other.structures for other in painted.values()):
                own.findings.append(_warn(f"{structure}: several regions are joined", label))
            own.structures.add(structure)
            own.findings += _paint(array, region, structure, ids, grid)
        if not own.structures and not own.findings:
            own.findings.append(_warn(f"no region of the {label.kind} is a known structure", label))
    return (Volume(array, grid) if array.any() else None), painted


def _paint(
    array: NDArray[np.int16], region: Region, structure: str, ids: Mapping[str, int], grid: Grid
) -> list[Finding]:
    try:
        mask, told = region.mask(grid)
    except UserError as error:
        return [_about(structure, Finding.of(error))]
    findings = [_about(structure, finding) for finding in told]
    if mask is not None:
        findings += _overlaps(array, mask, structure, ids, grid)
        array[mask.box][mask.array] = ids[structure]
    return findings


def _overlaps(
    array: NDArray[np.int16], mask: Mask, structure: str, ids: Mapping[str, int], grid: Grid
) -> list[Finding]:
    counts = np.bincount(array[mask.box][mask.array], minlength=max(ids.values()) + 1)
    told = []
    for other, number in ids.items():
        if counts[number] and other != structure:
            shared = f"{counts[number] * grid.voxel_ml:.2f} ml"
            what = f"{structure} overlaps {other} by {shared}; {structure}, the later in the list, wins"
            told.append(Finding("warn", what))
    return told


def _about(structure: str, finding: Finding) -> Finding:
    return Finding(finding.level, f"{structure}: {finding.what}", finding.where, finding.expected)


def _unless_refused(
    modality: Modality, placed: Mapping[Modality, Placed], label: LabelFile
) -> tuple[Modality | None, list[Finding]]:
    if modality in placed:
        return modality, []
    return None, [_warn(f"{label.kind} is left out: the {modality} it was drawn on was refused", label)]


def _warn(what: str, label: LabelFile) -> Finding:
    return Finding("warn", what, str(label.path))
