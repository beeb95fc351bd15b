"""The lines of a manifest: a CSV as spreadsheets write it, the mistakes of all lines collected."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umdseg.errors import UserError, nearest, unknown
from umdseg.vocabulary import MODALITIES, UNITS, Modality, Scan, Units

COLUMNS = ("subject", "modality", "image", "label", "units", "tracer_or_sequence", "split", "site")
# the person, where several subjects (studies) are of one
PATIENT = "patient"
# what the subject's labels tell about, where that is not every structure: liver+spleen
ANNOTATED = "annotated"
REQUIRED = COLUMNS[:3]
HEADER = ",".join(COLUMNS)
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
    patient: str
    annotated: str


def read_rows(path: Path) -> tuple[list[Row], list[UserError]]:
    """The lines that are right, and one error for each that is not.

    Raises:
        UserError: the file as a whole is no manifest (not text, a wrong header, no lines).
    """
    lines = _lines(path)
    if not lines:
        raise UserError("manifest has no rows", where=path, expected="one row per scan: " + HEADER)
    header = [name.lower() for name in lines[0][1]]
    _check_header(path, header)
    if len(lines) == 1:
        raise UserError("manifest has no rows", where=path, expected="one row per scan: " + HEADER)
    rows: list[Row] = []
    errors: list[UserError] = []
    for line, cells in lines[1:]:
        try:
            rows.append(_row(path, line, header, cells))
        except UserError as error:
            errors.append(error)
    return rows, errors


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and stripped cells of every line that is not blank; the header's is the first."""
    text = _text(path)
    first = next((line for line in text.splitlines() if line.strip(" ,;\t")), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        read = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        where = f"{path}, line {reader.line_num}"
        raise UserError(f"not readable as CSV: {error}", where=where, expected=HEADER) from error
    return [(line, cells) for line, cells in read if any(cells)]


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        what = f"manifest cannot be read: {error.strerror}"
        raise UserError(what, where=path, expected="a CSV file") from error
    expected = "a CSV saved as UTF-8"
    # UTF-16, as some spreadsheets call "Unicode", is half NUL bytes
    if b"\0" in content:
        what = "manifest is not UTF-8 text: it holds NUL bytes (UTF-16, or no text at all)"
        raise UserError(what, where=path, expected=expected)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"manifest is not UTF-8 text: {error}", where=path, expected=expected) from error


def _check_header(path: Path, header: Sequence[str]) -> None:
    where = f"{path}, header"
    for name in header:
        if name not in (*COLUMNS, PATIENT, ANNOTATED):
            alike = nearest(name, (*COLUMNS, PATIENT, ANNOTATED))
            raise UserError(f"unknown column '{name}'", where=where, expected=HEADER, nearest=alike)
    missing = [name for name in REQUIRED if name not in header]
    if missing or len(set(header)) < len(header):
        what = f"column '{missing[0]}' is missing" if missing else "a column appears twice"
        raise UserError(what, where=where, expected=HEADER)


def _row(path: Path, line: int, header: Sequence[str], listed: Sequence[str]) -> Row:
    where = f"{path}, line {line}"
    if len(listed) > len(header):
        raise UserError(f"line has {len(listed)} cells", where=where, expected=f"{len(header)} cells")
    cells = dict(zip(header, listed, strict=False))
    for name, cell in cells.items():
        if not cell.isprintable():
            what = f"'{name}' holds a line break or another control character"
            raise UserError(what, where=where, expected="one line per scan; is a quotation mark missing?")
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
    more = (cells.get(name, "") for name in ("site", PATIENT, ANNOTATED))
    return Row(line, subject, scan, split, *more)


def _file(manifest: Path, cell: str, kind: str, subject: str, line: int) -> Path:
    where = f"{manifest}, line {line}"
    given = Path(cell).expanduser()
    if not given.is_absolute() and os.path.normpath(given).split(os.sep)[0] == os.pardir:
        raise UserError(
            f"{kind} of subject {subject} lies outside the manifest's folder: {cell}",
            where=where,
            expected=f"a path inside {manifest.parent}, or an absolute path: "
            "a path that climbs breaks when the CSV is moved",
        )
    path = manifest.parent / given
    if not path.is_file():
        raise UserError(
            f"{kind} of subject {subject} is {_instead(path)}: {path}",
            where=where,
            expected="an existing file (paths are relative to the CSV)",
        )
    return path


def _instead(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a link that leads nowhere" if path.is_symlink() else "missing"


def _units(cell: str, modality: Modality, where: str) -> Units:
    wanted = UNITS[modality]
    if cell and _SPELT.get(cell.lower()) != wanted:
        expected = f"{wanted}; convert the image first"
        raise UserError(f"units '{cell}' for {modality}", where=where, expected=expected)
    return wanted
