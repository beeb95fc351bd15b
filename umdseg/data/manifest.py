"""The manifest: any paired dataset as one CSV, beside a small YAML that names its structures."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from umdseg.anatomy import find
from umdseg.data.dataset import PairedDataset
from umdseg.data.rows import ANNOTATED, COLUMNS, HEADER, PATIENT, Row, read_rows
from umdseg.data.structures import read_structures, structures_text
from umdseg.errors import UserError, unknown
from umdseg.files import write_text
from umdseg.vocabulary import Modality, Scan, Subject

__all__ = ["COLUMNS", "ManifestError", "read_manifest", "write_manifest"]

_SHOWN = 10
_JOINT = "+"


class ManifestError(UserError):
    """Everything wrong with the rows of a manifest and its structures.

    Args:
        path: the manifest.
        errors: what is wrong, at least one.
        rest: what is right in it.
    """

    def __init__(self, path: Path, errors: Sequence[UserError], rest: PairedDataset) -> None:
        self.errors, self.rest = tuple(errors), rest
        if len(errors) == 1:
            only = errors[0]
            super().__init__(only.what, where=only.where, expected=only.expected, nearest=only.nearest)
            return
        lines = [_line(error, path) for error in errors[:_SHOWN]]
        if len(errors) > _SHOWN:
            lines.append(f"... and {len(errors) - _SHOWN} more")
        what = "\n    ".join([f"the manifest has {len(errors)} mistakes", *lines])
        expected = {error.expected for error in errors}
        told = expected.pop() if len(expected) == 1 else f"one row per scan: {HEADER}"
        super().__init__(what, where=path, expected=told)


def read_manifest(path: Path | str, structures_file: Path | str | None = None) -> PairedDataset:
    """Read a manifest.

    Args:
        path: CSV with the columns of `COLUMNS` (subject, modality and image are required). `patient` may
            follow, where several subjects are studies of one person, and `annotated` (`liver+spleen`), where
            the labels of a subject tell about some of the structures only. Comma, semicolon or tab; UTF-8
            with or without a byte order mark. Paths are absolute, or relative to the CSV and below it.
        structures_file: YAML `structures: {liver: 1, ...}`; None means `<CSV stem>.yaml` beside the CSV.

    Returns:
        The dataset, named like the CSV's stem unless the YAML has `name`.

    Raises:
        ManifestError: mistakes in rows or structures, naming file, line and subject.
        UserError: the file as a whole is no manifest.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError("manifest is missing", where=path, expected=f"a CSV with the columns {HEADER}")
    rows, errors = read_rows(path)
    name, structures = path.stem, dict[str, int]()
    beside = Path(structures_file).expanduser() if structures_file else path.with_suffix(".yaml")
    if beside.is_file() or structures_file or any(row.scan.label for row in rows):
        try:
            name, structures = read_structures(beside, default_name=path.stem)
        except UserError as error:
            errors.append(error)
    dataset = PairedDataset(name, _subjects(path, rows, name, structures, errors), structures, path.parent)
    if errors:
        raise ManifestError(path, errors, dataset)
    return dataset


def write_manifest(dataset: PairedDataset, path: Path | str) -> None:
    """Write a dataset as CSV, and its structures as YAML beside it.

    Paths below the CSV's folder are written relative to it, others absolute.
    """
    path = Path(path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    patients = any(subject.patient for subject in dataset.subjects)
    partly = any(subject.annotated is not None for subject in dataset.subjects)
    writer.writerow([*COLUMNS, *([PATIENT] if patients else []), *([ANNOTATED] if partly else [])])
    for subject in dataset.subjects:
        for scan in subject.scans.values():
            image, label = (_written(p, path.parent) for p in (scan.image, scan.label))
            told = [scan.units, scan.tracer_or_sequence or "", subject.split, subject.site]
            told += [subject.patient] if patients else []
            told += [_JOINT.join(subject.annotated or ())] if partly else []
            writer.writerow([subject.id, scan.modality, image, label, *told])
    # the CSV last: a manifest without its structures is not read
    if dataset.structures:
        write_text(path.with_suffix(".yaml"), structures_text(dataset.name, dataset.structures))
    write_text(path, text.getvalue())


def _written(path: Path | None, folder: Path) -> str:
    if path is None:
        return ""
    relative = Path(os.path.relpath(path, folder))
    return Path(os.path.abspath(path) if relative.parts[0] == os.pardir else relative).as_posix()


def _line(error: UserError, path: Path) -> str:
    where = str(error.where or "").replace(f"{path}, ", "")
    near = f" (did you mean {error.nearest}?)" if error.nearest else ""
    return f"{where}: {error.what}{near}"


def _subjects(
    path: Path, rows: Sequence[Row], dataset: str, structures: Collection[str], errors: list[UserError]
) -> tuple[Subject, ...]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.subject, []).append(row)
    made = (_subject(path, name, own, dataset, errors) for name, own in grouped.items())
    return tuple(
        replace(one, annotated=_annotated(path, grouped[one.id], structures, errors)) for one in made
    )


def _annotated(
    path: Path, rows: Sequence[Row], structures: Collection[str], errors: list[UserError]
) -> tuple[str, ...] | None:
    """The structures that a subject's labels tell about; None where it does not say, so of all."""
    told = {row.annotated: row for row in rows if row.annotated}
    if not told:
        return None
    text, row = next(iter(told.items()))
    if len(told) > 1:
        lists = "' and '".join(told)
        what = f"subject {row.subject} has two lists of annotated structures: '{lists}'"
        where = f"{path}, line {[*told.values()][1].line}"
        errors.append(UserError(what, where=where, expected="one list in all rows of a subject"))
    names: list[str] = []
    for part in text.split(_JOINT):
        name = find(part) or part.strip()
        if structures and name not in structures:
            where = f"{path}, line {row.line} (subject {row.subject})"
            errors.append(unknown("annotated structure", part.strip(), structures, where=where))
        names.append(name)
    return tuple(dict.fromkeys(names))


def _subject(path: Path, name: str, rows: Sequence[Row], dataset: str, errors: list[UserError]) -> Subject:
    scans: dict[Modality, Scan] = {}
    lines: dict[Modality, int] = {}
    site, patient = (next((v for row in rows if (v := getattr(row, key))), "") for key in ("site", "patient"))
    for row in rows:
        if row.split != rows[0].split:
            what = f"subject {name} is in two splits: '{rows[0].split}' and '{row.split}'"
            where = f"{path}, lines {rows[0].line} and {row.line}"
            errors.append(UserError(what, where=where, expected="all scans of a subject in one split"))
        if row.patient and row.patient != patient:
            what = f"subject {name} is of two patients: '{patient}' and '{row.patient}'"
            where = f"{path}, line {row.line}"
            errors.append(UserError(what, where=where, expected="one patient in all rows of a subject"))
        modality = row.scan.modality
        if modality in scans:
            what = f"subject {name} has two {modality} scans"
            where = f"{path}, lines {lines[modality]} and {row.line}"
            errors.append(UserError(what, where=where, expected="one scan per subject and modality"))
            continue
        scans[modality], lines[modality] = row.scan, row.line
    return Subject(name, scans, rows[0].split, site, dataset, patient)
