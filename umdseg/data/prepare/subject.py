"""One group of series -> one subject folder, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import umdseg
from umdseg.data.checks import find_problems
from umdseg.data.io.dicom.headers import sequence, tracer
from umdseg.data.io.dicom.qa import verdicts
from umdseg.data.io.dicom.regions import LabelFile
from umdseg.data.io.dicom.series import Series
from umdseg.data.io.dicom.volume import read_series
from umdseg.data.io.nifti import write_volume
from umdseg.data.io.suv import read_pet
from umdseg.data.prepare.grouping import Candidate, Group
from umdseg.data.prepare.labels import REFERENCE, Painted, Placed, paint, target
from umdseg.data.prepare.pseudonyms import scrub
from umdseg.data.prepare.records import Prepared, QaRow, image_name, label_name, write_record
from umdseg.data.prepare.rois import RoiNames
from umdseg.data.verdict import Finding, worst
from umdseg.errors import UserError
from umdseg.files import sha256_file, sha256_value
from umdseg.vocabulary import Modality

Told = list[tuple[str, Finding]]


@dataclass(frozen=True)
class Work:
    """What one subject is made of.

    Attributes:
        group: its series.
        taken: the series chosen of each modality.
        labels: its label objects, oldest first.
    """

    group: Group
    taken: Mapping[Modality, Candidate]
    labels: tuple[LabelFile, ...]

    def source(self, names: RoiNames, ids: Mapping[str, int]) -> str:
        """Hash of the content of all its files, the structures asked for, and the version of this package."""
        series = {m: sorted(map(sha256_file, c.series.files)) for m, c in self.taken.items()}
        labels = [sha256_file(label.path) for label in self.labels]
        return sha256_value([umdseg.__version__, series, labels, names.given, dict(ids)])


@dataclass
class _Draft:
    """A subject on its way."""

    work: Work
    folder: Path
    placed: dict[Modality, Placed] = field(default_factory=dict)
    tracers: dict[Modality, str] = field(default_factory=dict)
    labels: dict[Modality, Modality] = field(default_factory=dict)
    rows: list[QaRow] = field(default_factory=list)
    told: Told = field(default_factory=list)

    def row(self, modality: str, number: int, findings: Iterable[Finding], **more: str) -> None:
        subject, findings = self.work.group.subject, list(findings)
        name = f"{subject}/{modality}{number}"
        self.told += [(name, finding) for finding in findings if finding.level != "pass"]
        headers = [candidate.series.header for candidate in self.work.group.candidates]
        reason = "; ".join(finding.what for finding in findings if finding.level != "pass")
        more = {key: scrub(value, headers) for key, value in more.items()}
        self.rows.append(QaRow(subject, modality, number, worst(findings), scrub(reason, headers), **more))


def build(
    work: Work, names: RoiNames, ids: Mapping[str, int], source: str, folder: Path
) -> tuple[Prepared, Told]:
    """Read, check and write one subject into `folder`; refused series are left out.

    Args:
        work: what it is made of.
        names: which region is which structure.
        ids: structure -> id.
        source: `work.source(...)`.
        folder: an empty folder.

    Returns:
        The record, also written into `folder`, and all findings with the name of their series.
    """
    draft = _Draft(work, folder)
    for modality, candidate in work.taken.items():
        _image(draft, modality, candidate)
    _labels(draft, names, ids)
    subject = work.group.subject
    made = Prepared(subject, source, draft.tracers, draft.labels, (), {})
    problems = find_problems(made.scans(folder)) if draft.tracers else []
    if problems:
        draft.row("all", 0, problems)
        for path in folder.iterdir():
            path.unlink()
        made = Prepared(subject, source, {}, {}, (), {})
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    made = Prepared(subject, source, made.tracers, made.labels, tuple(draft.rows), sizes)
    write_record(made, folder)
    return made, draft.told


def _image(draft: _Draft, modality: Modality, candidate: Candidate) -> None:
    series: Series = candidate.series
    try:
        scan = read_pet(series) if modality == "pet" else read_series(series)
        findings = verdicts(series, scan)
    except UserError as error:
        draft.row(modality, candidate.number, [Finding.of(error)])
        return
    kind = tracer(scan.header) if modality == "pet" else sequence(scan.header) if modality == "mr" else ""
    grid = scan.volume.grid
    rule = next((f.what for f in scan.findings if f.level == "pass"), "") if modality == "pet" else ""
    more = {
        "tracer_or_sequence": kind,
        "shape": "x".join(map(str, grid.shape)),
        "spacing_mm": "x".join(f"{length:.4g}" for length in grid.spacing),
        "suv_rule": rule,
    }
    draft.row(modality, candidate.number, findings, **more)
    if worst(findings) != "refuse":
        write_volume(scan.volume, draft.folder / image_name(modality))
        draft.placed[modality] = Placed(grid, frozenset(key.partition("#")[0] for key in scan.slices))
        draft.tracers[modality] = kind


def _labels(draft: _Draft, names: RoiNames, ids: Mapping[str, int]) -> None:
    own: dict[Modality, list[LabelFile]] = {}
    findings: dict[str, list[Finding]] = {}
    given: dict[str, Painted] = {}
    for label in draft.work.labels:
        modality, findings[label.uid] = target(label, draft.work.group, draft.work.taken, draft.placed)
        if modality is not None:
            own.setdefault(modality, []).append(label)
    refused: set[Modality] = set()
    for modality, labels in own.items():
        volume, painted = paint(labels, draft.placed[modality].grid, names, ids)
        given.update(painted)
        if any(worst(one.findings) == "refuse" for one in painted.values()):
            refused.add(modality)
        elif volume is not None:
            write_volume(volume, draft.folder / label_name(modality))
            draft.labels[modality] = modality
    for number, label in enumerate(draft.work.labels, start=1):
        one = given.get(label.uid, Painted())
        structures = " ".join(name for name in ids if name in one.structures)
        draft.row(label.kind.lower(), number, findings[label.uid] + one.findings, structures=structures)
    # a scan without a label of its own is scored with that of another scan of the subject
    shared = next((m for m in REFERENCE if m in draft.labels), None)
    for modality in draft.placed:
        if shared and modality not in refused:
            draft.labels.setdefault(modality, shared)
