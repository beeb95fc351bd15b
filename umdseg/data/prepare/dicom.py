"""`umdseg prepare dicom ROOT OUT`: a scanner's folder -> pseudonymous paired subjects with a manifest."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from umdseg.data.dataset import PairedDataset
from umdseg.data.io.dicom.headers import not_a_scan
from umdseg.data.io.dicom.regions import KINDS, LabelFile, inspect
from umdseg.data.io.dicom.series import Series, find_series
from umdseg.data.manifest import write_manifest
from umdseg.data.prepare.grouping import CODES, Group, choose, group
from umdseg.data.prepare.labels import sort_labels
from umdseg.data.prepare.pseudonyms import Pseudonyms, read_key
from umdseg.data.prepare.records import RECORD, Prepared, QaRow, read_record, write_qa
from umdseg.data.prepare.rois import RoiNames
from umdseg.data.prepare.subject import Told, Work, build
from umdseg.data.prepare.workplace import put_in_place, workplace
from umdseg.data.verdict import LEVELS, Finding
from umdseg.errors import UserError, unknown
from umdseg.progress import track
from umdseg.vocabulary import MODALITIES, Subject

MANIFEST, QA, QC = "subjects.csv", "qa.csv", "qc"


@dataclass
class DicomOptions:
    """How a folder of DICOM is prepared.

    Attributes:
        roi: `NAME=structure` for regions whose name is not in the table; `*` stands for anything, no
            structure leaves the region out.
        series: series (UID, or the name of a message) taken whatever the rule says.
        key: file with the key of the pseudonyms; None means $UMDSEG_KEY_FILE or the user's own.
        keep_ids: subjects are called by their PatientID.
    """

    roi: list[str] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    key: Path | None = None
    keep_ids: bool = False

    def validate(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UserError: a key although ids are kept; a malformed `roi`.
        """
        if self.key and self.keep_ids:
            raise UserError("--keep-ids makes no pseudonyms, so --key has no use", expected="one of the two")
        RoiNames(self.roi)


@dataclass(frozen=True)
class Summary:
    """What came out.

    Attributes:
        manifest: the CSV; None if no subject was usable.
        subjects: with their scans.
        rows: verdict of every series.
        told: findings by the name of what they are about.
        kept: subjects that an earlier run had finished.
        structures: structure -> id in the labels.
    """

    manifest: Path | None
    subjects: tuple[Subject, ...]
    rows: tuple[QaRow, ...]
    told: Told
    kept: int
    structures: dict[str, int]

    @property
    def refused(self) -> bool:
        """Whether anything was refused."""
        return self.manifest is None or any(finding.level == "refuse" for _, finding in self.told)


def prepare_dicom(root: Path, out: Path, options: DicomOptions) -> Summary:
    """Prepare all DICOM below `root`.

    Writes `<subject>/<modality>.nii.gz` and `<subject>/<modality>_label.nii.gz`, pictures in `qc/`,
    `qa.csv`, and last the manifest `subjects.csv` with `subjects.yaml`. Subjects that an earlier run
    finished from the same files are kept. Nothing written names a person, place, date or original file.

    Raises:
        UserError: no DICOM below `root`, unusable options, or nothing to make a subject of.
    """
    options.validate()
    root, out = root.expanduser(), out.expanduser()
    if out.resolve() == root.resolve() or out.resolve().is_relative_to(root.resolve()):
        raise UserError("OUT lies inside ROOT", where=out, expected="a folder apart from the DICOM files")
    pseudonyms = Pseudonyms(None if options.keep_ids else read_key(options.key, out))
    with warnings.catch_warnings():
        # remarks on single values, which they may repeat
        warnings.filterwarnings("ignore", module="pydicom")
        series, found = find_series(root)
        told: Told = [("", finding) for finding in found]
        if options.keep_ids:
            what = "patient ids are kept: they name the folders, the manifest and every report"
            told.append(
                ("", Finding("warn", what, "--keep-ids", "pseudonyms, unless the ids are pseudonyms"))
            )
        labels, names, ids = _label_files(series, options, told)
        works = _works(root, series, pseudonyms, options, labels, told)
        with workplace(out) as place:
            prepared, kept = _build_all(works, names, ids, out, place, told)
        return _finish(out, works, prepared, kept, ids, told)


def _label_files(
    series: Sequence[Series], options: DicomOptions, told: Told
) -> tuple[list[LabelFile], RoiNames, dict[str, int]]:
    labels: dict[str, LabelFile] = {}
    paths = [path for one in series if one.modality in KINDS for path in one.files]
    for path in track(paths, "look into label objects", "file"):
        try:
            label = inspect(path)
        except UserError as error:
            told.append(("", Finding.of(error)))
            continue
        if labels.setdefault(label.uid, label) is not label:
            what = "a label object has the UID of another one and is left out"
            told.append(("", Finding("warn", what, str(path), "every object once")))
    names = RoiNames(options.roi)
    regions = [region for label in labels.values() for region in label.names]
    told += [("", finding) for finding in names.findings(regions)]
    return list(labels.values()), names, names.ids(regions)


def _works(
    root: Path,
    series: Sequence[Series],
    pseudonyms: Pseudonyms,
    options: DicomOptions,
    labels: Sequence[LabelFile],
    told: Told,
) -> list[Work]:
    groups, findings = group(series, pseudonyms)
    told += [("", finding) for finding in findings]
    others = sorted({one.modality or "none" for one in series} - CODES.keys() - set(KINDS))
    if others:
        told.append(("", Finding("pass", f"series of other modalities left out: {', '.join(others)}")))
    if not groups:
        raise UserError(
            "no CT, PET or MR series among the DICOM files",
            where=root,
            expected="images of one of these modalities",
        )
    _check_forced(options.series, groups)
    own, findings = sort_labels(labels, groups)
    told += [("", finding) for finding in findings]
    works = []
    for one, its in zip(groups, own, strict=True):
        taken = {}
        for modality in MODALITIES:
            best, findings = choose(one, modality, options.series)
            told += [(one.subject, finding) for finding in findings]
            if best is not None:
                taken[modality] = best
        works.append(Work(one, taken, tuple(its)))
    return works


def _check_forced(forced: Sequence[str], groups: Sequence[Group]) -> None:
    known = {g.name(c): c.series.uid for g in groups for c in g.candidates}
    for name in forced:
        if name not in known and name not in known.values():
            raise unknown("series", name, known, where="--series")


def _build_all(
    works: Sequence[Work], names: RoiNames, ids: dict[str, int], out: Path, place: Path, told: Told
) -> tuple[list[Prepared], int]:
    prepared, kept = [], 0
    for work in track(works, "prepare", "subject"):
        final, source = out / work.group.subject, work.source(names, ids)
        record = read_record(final)
        if record is not None and record.source == source:
            kept += 1
            told += [
                (f"{row.subject}/{row.modality}{row.series}", Finding(level, row.reason))
                for row in record.rows
                for level in LEVELS[1:]
                if row.verdict == level
            ]
        else:
            # from here on the old manifest would speak of folders that are being replaced
            (out / MANIFEST).unlink(missing_ok=True)
            folder = place / work.group.subject
            folder.mkdir()
            record, findings = build(work, names, ids, source, folder)
            told += findings
            (out / QC / f"{record.subject}.png").unlink(missing_ok=True)
            put_in_place(folder, final)
        prepared.append(record)
    return prepared, kept


def _finish(
    out: Path, works: Sequence[Work], prepared: Sequence[Prepared], kept: int, ids: dict[str, int], told: Told
) -> Summary:
    subjects = []
    for work, record in zip(works, prepared, strict=True):
        if record.tracers:
            person = work.group.person if work.group.person != work.group.subject else ""
            subjects.append(replace(record.scans(out / record.subject), patient=person))
    rows = tuple(row for work, record in zip(works, prepared, strict=True) for row in _rows(work, record))
    write_qa(rows, out / QA)
    _pictures(subjects, ids, out / QC, told)
    _tell_strangers(out, {work.group.subject for work in works}, told)
    structures = ids if any(scan.label for s in subjects for scan in s.scans.values()) else {}
    (out / MANIFEST).with_suffix(".yaml").unlink(missing_ok=True)
    if not subjects:
        (out / MANIFEST).unlink(missing_ok=True)
        return Summary(None, (), rows, told, kept, structures)
    write_manifest(PairedDataset(out.resolve().name, tuple(subjects), structures, out), out / MANIFEST)
    return Summary(out / MANIFEST, tuple(subjects), rows, told, kept, structures)


def _rows(work: Work, record: Prepared) -> Iterator[QaRow]:
    yield from record.rows
    for candidate in work.group.candidates:
        if candidate not in work.taken.values():
            unfit = not_a_scan(candidate.series)
            why = "no scan: localizer, capture or projection" if unfit else "another series was taken"
            yield QaRow(record.subject, candidate.modality, candidate.number, "skipped", why)


def _pictures(subjects: Sequence[Subject], ids: dict[str, int], folder: Path, told: Told) -> None:
    from umdseg.data.qc import picture

    missing = [subject for subject in subjects if not (folder / f"{subject.id}.png").is_file()]
    for subject in track(missing, "pictures", "subject"):
        try:
            picture(subject, folder / f"{subject.id}.png", ids)
        except UserError as error:
            told.append((subject.id, Finding.of(error, "warn")))


def _tell_strangers(out: Path, subjects: set[str], told: Told) -> None:
    strange = sum(path.parent.name not in subjects for path in out.glob(f"[!.]*/{RECORD}"))
    if strange:
        what = f"{strange} folders in OUT belong to no subject of ROOT; the manifest leaves them out"
        told.append(("", Finding("warn", what, str(out), "one OUT for one ROOT")))
