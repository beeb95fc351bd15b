"""The manifest: any paired dataset as one CSV, beside a small YAML that names its structures."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umdseg.data.dataset import PairedDataset
from umdseg.data.structures import read_structures, structures_text
from umdseg.errors import UserError, nearest, unknown
from umdseg.files import write_text
from umdseg.vocabulary import MODALITIES, UNITS, Modality, Scan, Subject, Units

COLUMNS = ("subject", "modality", "image", "label", "units", "tracer_or_sequence", "split", "site")
REQUIRED = COLUMNS[:3]
_HEADER = ",".join(COLUMNS)
SPLITS = ("train", "val", "test", "")
_SPELT: dict[str, Units] = {"hu": "HU", "suv": "SUV", "suvbw": "SUV", "a.u.": "a.u.", "au": "a.u."}


@dataclass(frozen=True)
class Row:
    """One line of the CSV, read and checked."""

    line: int
    subject: str
    scan: Scan
    split: str
    site: str


def read_manifest(path: Path | str, structures_file: Path | str | None = None) -> PairedDataset:
    """Read a manifest.

    Args:
        path: CSV with the columns of `COLUMNS` (subject, modality and image are required). Comma,
            semicolon or tab; UTF-8 with or without a byte order mark. Paths are relative to the CSV.
        structures_file: YAML `structures: {liver: 1, ...}`; None means `<CSV stem>.yaml` beside the CSV.

    Returns:
        The dataset, named like the CSV's stem unless the YAML has `name`.

    Raises:
        UserError: naming file, line and subject.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError("manifest is missing", where=path, expected=f"a CSV with the columns {_HEADER}")
    rows = [_row(path, line, cells) for line, cells in _cells(path)]
    beside = Path(structures_file).expanduser() if structures_file else path.with_suffix(".yaml")
    name, structures = path.stem, dict[str, int]()
    if beside.is_file() or structures_file or any(row.scan.label for row in rows):
        name, structures = read_structures(beside, default_name=path.stem)
    subjects = _subjects(path, rows, name)
    return PairedDataset(name, subjects, structures, path.parent)


def write_manifest(dataset: PairedDataset, path: Path | str) -> None:
    """Write a dataset as CSV, and its structures as YAML beside it; paths are relative to the CSV."""
    path = Path(path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for subject in dataset.subjects:
        for scan in subject.scans.values():
            image, label = (_relative(p, path.parent) for p in (scan.image, scan.label))
            told = (scan.units, scan.tracer_or_sequence or "", subject.split, subject.site)
            writer.writerow([subject.id, scan.modality, image, label, *told])
    write_text(path, text.getvalue())
    write_text(path.with_suffix(".yaml"), structures_text(dataset.name, dataset.structures))


def _relative(path: Path | None, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix() if path else ""


def _cells(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        expected = "a CSV saved as UTF-8"
        raise UserError(f"manifest is not UTF-8 text: {error}", where=path, expected=expected) from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header: list[str] = []
    found = []
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if not any(stripped):
            continue
        if not header:
            header = [name.lower() for name in stripped]
            _check_header(path, header)
            continue
        if len(stripped) > len(header):
            where = f"{path}, line {reader.line_num}"
            raise UserError(f"line has {len(stripped)} cells", where=where, expected=f"{len(header)} cells")
        found.append((reader.line_num, dict(zip(header, stripped, strict=False))))
    if not found:
        raise UserError("manifest has no rows", where=path, expected="one row per scan: " + _HEADER)
    return found


def _check_header(path: Path, header: Sequence[str]) -> None:
    for name in header:
        if name not in COLUMNS:
            alike = nearest(name, COLUMNS)
            raise UserError(
                f"unknown column '{name}'", where=f"{path}, header", expected=_HEADER, nearest=alike
            )
    missing = [name for name in REQUIRED if name not in header]
    if missing or len(set(header)) < len(header):
        what = f"column '{missing[0]}' is missing" if missing else "a column appears twice"
        raise UserError(what, where=f"{path}, header", expected=_HEADER)


def _row(path: Path, line: int, cells: Mapping[str, str]) -> Row:
    where = f"{path}, line {line}"
    for name in REQUIRED:
        if not cells.get(name):
            expected = "subject, modality and image in every row"
            raise UserError(f"'{name}' is empty", where=where, expected=expected)
    subject, modality = cells["subject"], cells["modality"].lower()
    where = f"{where} (subject {subject})"
    if set(subject) & set("/\\") or subject in (".", ".."):
        # results are filed under the subject's name
        raise UserError(f"subject '{subject}' cannot be a folder's name", where=where, expected="no / or \\")
    if modality not in MODALITIES:
        raise unknown("modality", cells["modality"], MODALITIES, where=where)
    split = cells.get("split", "").lower()
    if split not in SPLITS:
        raise unknown("split", cells["split"], SPLITS[:3], where=where)
    scan = Scan(
        image=_file(path, cells["image"], "image", subject, line),
        modality=modality,
        units=_units(cells.get("units", ""), modality, where),
        label=_file(path, cells["label"], "label", subject, line) if cells.get("label") else None,
        tracer_or_sequence=cells.get("tracer_or_sequence") or None,
    )
    return Row(line, subject, scan, split, cells.get("site", ""))


def _file(manifest: Path, cell: str, kind: str, subject: str, line: int) -> Path:
    path = manifest.parent / Path(cell).expanduser()
    if not path.is_file():
        raise UserError(
            f"{kind} of subject {subject} is missing: {path}",
            where=f"{manifest}, line {line}",
            expected="an existing file (paths are relative to the CSV)",
        )
    return path


def _units(cell: str, modality: Modality, where: str) -> Units:
    wanted = UNITS[modality]
    if cell and _SPELT.get(cell.lower()) != wanted:
        expected = f"{wanted}; convert the image first"
        raise UserError(f"units '{cell}' for {modality}", where=where, expected=expected)
    return wanted


def _subjects(path: Path, rows: Sequence[Row], dataset: str) -> tuple[Subject, ...]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.subject, []).append(row)
    return tuple(_subject(path, name, own, dataset) for name, own in grouped.items())


def _subject(path: Path, name: str, rows: Sequence[Row], dataset: str) -> Subject:
    scans: dict[Modality, Scan] = {}
    lines: dict[Modality, int] = {}
    for row in rows:
        where = f"{path}, lines {rows[0].line} and {row.line}"
        if row.split != rows[0].split:
            raise UserError(
                f"subject {name} is in two splits: '{rows[0].split}' and '{row.split}'",
                where=where,
                expected="all scans of a subject in one split",
            )
        modality = row.scan.modality
        if modality in scans:
            raise UserError(
                f"subject {name} has two {modality} scans",
                where=f"{path}, lines {lines[modality]} and {row.line}",
                expected="one scan per subject and modality",
            )
        scans[modality], lines[modality] = row.scan, row.line
    site = next((row.site for row in rows if row.site), "")
    return Subject(name, scans, rows[0].split, site, dataset)
