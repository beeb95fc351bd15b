"""The dataset: who is in it, and whether the files and headers are usable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from umdseg.config.schema import Settings
from umdseg.data.checks import Headers, find_repeats, read_all
from umdseg.data.dataset import PairedDataset
from umdseg.data.fov import common_mask
from umdseg.data.geometry import canonical_grid
from umdseg.data.hashes import cache_root
from umdseg.data.manifest import ManifestError
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.preflight.check import Check, count
from umdseg.registry import resolve
from umdseg.vocabulary import MODALITIES, Subject

# share of a scan that its label covers, on points so many millimetres apart
_COVERED, _POINTS_MM = 0.95, 16.0


def dataset_of(settings: Settings, told: Collection[str] = ()) -> tuple[PairedDataset | None, Check]:
    """The dataset as its source lists it, with what is wrong in the listing.

    Args:
        settings: the configuration.
        told: config paths whose problems are told already.
    """
    name = "data"
    try:
        source = resolve("data", settings.data.name)(settings.data)
        dataset: PairedDataset = source.read(settings.run.seed)
    except ManifestError as error:
        return error.rest, Check(name, _who(error.rest), tuple(map(Finding.of, error.errors)))
    except UserError as error:
        # a source without its files was told of by the configuration
        known = str(error.where) in told
        return None, Check(name, "not listed", () if known else (Finding.of(error),))
    return dataset, Check(name, _who(dataset), tuple(find_repeats(dataset.subjects)))


def headers_of(settings: Settings, dataset: PairedDataset) -> tuple[list[Headers], Check]:
    """Grids of all files, and what is wrong with files and headers."""
    subjects = [_there(settings, subject) for subject in dataset.subjects]
    headers = list(read_all([subject for subject in subjects if subject.scans]))
    findings = tuple(finding for one in headers for finding in (*one.findings, *_uncovered(one)))
    files = sum(len(one.grids) for one in headers)
    numbers = f"{count(files, 'usable file')} of {count(len(headers), 'subject')}"
    waiting = files_in(dataset.subjects) - files_in(subjects)
    if waiting:
        numbers += f"; {count(waiting, 'file')} made by the run, not by a check"
    return headers, Check("files", numbers, findings)


def _uncovered(headers: Headers) -> Iterator[Finding]:
    """Labels on the grid of another scan that saw less of the body than the one they are used for."""
    for modality, scan in headers.subject.scans.items():
        own = headers.grids.get(scan.image)
        label = headers.grids.get(scan.label) if scan.label else None
        if own is None or label is None or label.same_as(own):
            continue
        points = canonical_grid(own, (_POINTS_MM, _POINTS_MM, _POINTS_MM))
        share = common_mask(points, [own, label]).sum() / common_mask(points, [own]).sum()
        if share < _COVERED:
            what = f"label drawn on another scan covers {share:.0%} of the {modality}; what lies beyond"
            what += " is background in training and is not scored"
            where = f"{scan.label} (subject {headers.subject.id})"
            yield Finding("warn", what, where, f"a label on the whole {modality}, or none")


def _there(settings: Settings, subject: Subject) -> Subject:
    """The subject without files that its source makes into the cache and has not made yet."""
    cache = cache_root(settings.data.cache_dir)

    def awaited(path: Path | None) -> bool:
        return path is not None and path.is_relative_to(cache) and not path.exists()

    scans = {
        modality: replace(scan, label=None) if awaited(scan.label) else scan
        for modality, scan in subject.scans.items()
        if not awaited(scan.image)
    }
    return replace(subject, scans=scans)


def files_in(subjects: Iterable[Subject]) -> int:
    """Number of different files of some subjects."""
    return len({p for s in subjects for scan in s.scans.values() for p in (scan.image, scan.label) if p})


def _who(dataset: PairedDataset) -> str:
    scans = Counter(modality for subject in dataset.subjects for modality in subject.scans)
    parts = [f"{scans[modality]} {modality}" for modality in MODALITIES if scans[modality]]
    return f"{dataset.name}: {count(len(dataset.subjects), 'subject')}, {', '.join(parts) or 'no scans'}"
