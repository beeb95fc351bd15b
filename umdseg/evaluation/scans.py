"""`scans.csv` of a run folder: grid, values and verdict of every scan that was scored."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from umdseg.data.geometry import Volume
from umdseg.data.verdict import Finding, worst
from umdseg.files import atomic
from umdseg.vocabulary import Modality, Subject

SCANS = "scans.csv"
COLUMNS = (
    *("subject", "modality", "shape", "spacing", "units", "verdict", "reason"),
    *("min", "median", "max", "common_fov"),
)


def scan_row(
    subject: Subject, modality: Modality, volume: Volume, findings: Sequence[Finding], share: float | None
) -> dict[str, str]:
    """One row; no path and nothing of a header but the grid.

    Args:
        subject: whose scan.
        modality: which scan.
        volume: as read.
        findings: verdicts on its values.
        share: share of its field of view that all scored scans of the subject saw; None for a single one.
    """
    array = np.asarray(volume.array, dtype=np.float32)
    return {
        "subject": subject.id,
        "modality": modality,
        "shape": " x ".join(str(n) for n in volume.grid.shape),
        "spacing": " x ".join(f"{s:.2f}" for s in volume.grid.spacing),
        "units": subject.scans[modality].units,
        "verdict": worst(findings),
        "reason": "; ".join(finding.what for finding in findings),
        "min": f"{float(array.min()):.4g}",
        "median": f"{float(np.median(array)):.4g}",
        "max": f"{float(array.max()):.4g}",
        "common_fov": "" if share is None else f"{share:.3f}",
    }


def write_scans(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Write the table atomically; scans it held already keep their place and get the new row."""
    if not rows:
        return
    table = {(row["subject"], row["modality"]): row for row in [*read_scans(path), *rows]}
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.values())


def read_scans(path: Path) -> list[dict[str, str]]:
    """The rows; none where there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def part_of(folder: Path, stage: str, rank: int) -> Path:
    """Where one process of several keeps its share until `merge_scans` joins them."""
    return folder / "parts" / f"{stage}-{rank:04d}-{SCANS}"


def merge_scans(folder: Path, stage: str, world: int) -> None:
    """Join the shares of all processes into the folder's table and remove them."""
    parts = [part_of(folder, stage, rank) for rank in range(world)]
    write_scans([row for part in parts for row in read_scans(part)], folder / SCANS)
    for part in parts:
        part.unlink(missing_ok=True)
