"""What is kept of a prepared subject: its scans and the verdict on each series, nothing that identifies."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from umdseg.data.verdict import LEVELS
from umdseg.files import write_json, write_text
from umdseg.vocabulary import UNITS, Modality, Scan, Subject

RECORD = "prepared.json"


@dataclass(frozen=True)
class QaRow:
    """One line of qa.csv: one series.

    Attributes:
        subject: pseudonym.
        modality: ct, pet, mr, rtstruct, seg; all for what concerns the whole subject.
        series: running number among the subject's series of the modality.
        verdict: pass, warn, refuse, or skipped (another series was taken; no scan).
        reason: why; empty when the verdict is pass.
        tracer_or_sequence: PET tracer or MR sequence.
        shape: voxels along x, y, z.
        spacing_mm: voxel edge lengths.
        suv_rule: how PET became SUV.
        structures: what a label object gave, separated by blanks.
    """

    subject: str
    modality: str
    series: int
    verdict: str
    reason: str = ""
    tracer_or_sequence: str = ""
    shape: str = ""
    spacing_mm: str = ""
    suv_rule: str = ""
    structures: str = ""


@dataclass(frozen=True)
class Prepared:
    """A finished subject folder.

    Attributes:
        subject: pseudonym, the folder's name.
        source: hash of what it was made of.
        tracers: modality of each scan -> tracer or sequence ("" if unknown).
        labels: modality -> the modality whose label file it uses; without a label it is absent.
        rows: verdicts of the series taken and of the label objects.
        sizes: file -> bytes, by which a later run sees that all is there.
    """

    subject: str
    source: str
    tracers: Mapping[Modality, str]
    labels: Mapping[Modality, Modality]
    rows: tuple[QaRow, ...]
    sizes: Mapping[str, int]

    def scans(self, folder: Path) -> Subject:
        """The subject, with its files below `folder`."""
        scans = {
            m: Scan(
                image=folder / image_name(m),
                modality=m,
                units=UNITS[m],
                label=folder / label_name(self.labels[m]) if m in self.labels else None,
                tracer_or_sequence=tracer or None,
            )
            for m, tracer in self.tracers.items()
        }
        return Subject(self.subject, scans, split="")


def image_name(modality: Modality) -> str:
    """File name of a scan."""
    return f"{modality}.nii.gz"


def label_name(modality: Modality) -> str:
    """File name of the label map on the grid of a scan."""
    return f"{modality}_label.nii.gz"


def write_record(prepared: Prepared, folder: Path) -> None:
    """Put the record into the subject's folder."""
    write_json(folder / RECORD, asdict(prepared))


def read_record(folder: Path) -> Prepared | None:
    """The record of a folder that an earlier run finished and that still holds all its files."""
    try:
        told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        told["rows"] = tuple(QaRow(**row) for row in told["rows"])
        prepared = Prepared(**told)
        whole = all((folder / name).stat().st_size == size for name, size in prepared.sizes.items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return prepared if whole else None


def write_qa(rows: Iterable[QaRow], path: Path) -> None:
    """Write qa.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(QaRow)])
    writer.writerows(asdict(row).values() for row in rows)
    write_text(path, text.getvalue())


def verdict_of(rows: Sequence[QaRow]) -> str:
    """The most serious verdict of several series; skipped when all are."""
    levels = [row.verdict for row in rows if row.verdict in LEVELS]
    return max(levels, key=[*LEVELS].index, default="skipped")
