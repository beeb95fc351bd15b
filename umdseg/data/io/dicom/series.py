"""Every DICOM series below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umdseg.data.io.dicom.instance import pydicom, read_header, text
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.progress import track


@dataclass(frozen=True)
class Series:
    """One DICOM series.

    Attributes:
        uid: SeriesInstanceUID ("no-uid-1", ... where the files have none).
        study: StudyInstanceUID.
        frame: FrameOfReferenceUID, "" if absent.
        modality: DICOM code: CT, PT, MR, RTSTRUCT, SEG, ...
        files: its instances.
        patient: PatientID and its issuer, only to make a pseudonym of.
        header: one instance's header without pixels (pydicom Dataset).
    """

    uid: str
    study: str
    frame: str
    modality: str
    files: tuple[Path, ...] = field(repr=False)
    patient: str = field(repr=False)
    header: Any = field(repr=False)

    @property
    def number(self) -> str:
        """SeriesNumber, "" if absent."""
        return text(self.header, "SeriesNumber")

    @property
    def name(self) -> str:
        """For messages: nothing that could identify a person."""
        count = len(self.files)
        return f"{self.modality or 'unknown'} series of {count} file{'s' * (count != 1)}"

    @property
    def where(self) -> str:
        """Its folder and name, for messages on the console."""
        return f"{self.files[0].parent} ({self.name})"


# study, uid, patient, modality: bad de-identification gives one UID to several of these; the last
# is the folder, for files without a series UID
Key = tuple[str, str, str, str, str]


def find_series(root: Path) -> tuple[list[Series], list[Finding]]:
    """Find the series below `root`, whatever the files are called.

    Files that are not DICOM and DICOMDIRs are counted and left out; links are followed, each folder
    once.

    Returns:
        The series, ordered by study and UID, and what was found wrong: a DICOM file that is truncated,
        unreadable or lacks its pixels is a refusal that names the file.

    Raises:
        UserError: `root` is no folder or holds no DICOM file at all; pydicom is not installed.
    """
    root = Path(root)
    pydicom()
    if not root.is_dir():
        raise UserError("folder is missing", where=root, expected="a folder with DICOM files")
    files: dict[Key, list[Path]] = {}
    headers: dict[Key, Any] = {}
    findings: list[Finding] = []
    other = 0
    denied: list[OSError] = []
    for path in track(sorted(_walk(root, denied)), "looking for DICOM series", "file"):
        try:
            header = read_header(path)
        except UserError as error:
            findings.append(Finding.of(error))
            continue
        if header is None:
            other += 1
            continue
        key = _key(header, path)
        files.setdefault(key, []).append(path)
        headers.setdefault(key, header)
    for problem in denied:
        what = f"folder cannot be read ({type(problem).__name__})"
        findings.append(Finding("refuse", what, str(problem.filename), "a folder you may read"))
    if not files and not findings:
        what = f"no DICOM file found among {other} files"
        raise UserError(what, where=root, expected="a folder with DICOM files below it")
    if other:
        findings.append(
            Finding("pass", f"{other} files that are no DICOM images or objects left out", str(root))
        )
    nameless = sum(not key[1] for key in files)
    if nameless:
        what = f"{nameless} series without SeriesInstanceUID: files grouped by folder instead"
        findings.append(Finding("warn", what, str(root), "one series per folder, or files with a UID"))
    return _series(files, headers), findings


def _series(files: dict[Key, list[Path]], headers: dict[Key, Any]) -> list[Series]:
    found, nameless = [], 0
    for key in sorted(files):
        study, uid, patient, modality, _ = key
        if not uid:
            nameless += 1
            uid = f"no-uid-{nameless}"
        frame = text(headers[key], "FrameOfReferenceUID")
        found.append(Series(uid, study, frame, modality, tuple(files[key]), patient, headers[key]))
    return found


def _key(header: Any, path: Path) -> Key:
    uid = text(header, "SeriesInstanceUID")
    # an empty PatientID stays empty, so that two nameless patients are not told apart by their issuer
    patient = text(header, "PatientID")
    if patient and text(header, "IssuerOfPatientID"):
        patient += "\x1f" + text(header, "IssuerOfPatientID")
    folder = "" if uid else str(path.parent)
    return text(header, "StudyInstanceUID"), uid, patient, text(header, "Modality").upper(), folder


def _walk(root: Path, denied: list[OSError]) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(root, onerror=denied.append, followlinks=True):
        place = os.stat(folder)
        if (place.st_dev, place.st_ino) in seen:
            below.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        for name in names:
            path = Path(folder) / name
            # sockets and pipes would block; a link to nowhere is a file that cannot be read
            if path.is_file() or path.is_symlink():
                yield path
