"""What `umdseg prepare dicom` says at its end: what is there, what is wrong, what to do next."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from umdseg.data.prepare.dicom import QA, QC, Summary
from umdseg.data.prepare.records import QaRow, verdict_of
from umdseg.data.verdict import LEVELS, Finding
from umdseg.vocabulary import MODALITIES

_SHOWN = 40
_FOLDS = 5


def tell(summary: Summary, out: Path) -> None:
    """Print the summary on standard error."""
    for level in LEVELS:
        own = [(name, finding) for name, finding in summary.told if finding.level == level]
        for name, finding in own[:_SHOWN]:
            print(_line(name, finding), file=sys.stderr)
        if len(own) > _SHOWN:
            print(f"... and {len(own) - _SHOWN} more of this kind: {out / QA}", file=sys.stderr)
    _table(summary, out)
    labels = sum(1 for s in summary.subjects for scan in s.scans.values() if scan.label)
    scans = sum(len(s.scans) for s in summary.subjects)
    refused = sum(finding.level == "refuse" for _, finding in summary.told)
    warned = sum(finding.level == "warn" for _, finding in summary.told)
    counts = f"{len(summary.subjects)} subjects ({summary.kept} kept from an earlier run), {scans} scans"
    lines = [f"{counts}, {labels} with labels; {refused} refusals, {warned} warnings"]
    if summary.structures:
        lines.append(f"structures: {_structures(summary)}")
    lines.append(f"verdicts: {out / QA}   pictures: {out / QC}")
    print("\n".join([*lines, *_next(summary)]), file=sys.stderr)


def _line(name: str, finding: Finding) -> str:
    level = "note" if finding.level == "pass" else finding.level
    where = f" ({finding.where})" if finding.where else ""
    line = f"{level}: {name + ': ' if name else ''}{finding.what}{where}"
    line += f"\n    expected: {finding.expected}" if finding.expected else ""
    return line + (f"\n    did you mean: {finding.nearest}" if finding.nearest else "")


def _next(summary: Summary) -> list[str]:
    if summary.manifest is None:
        return ["no subject could be made: mend what was refused above, then run again"]
    held = [set(subject.scans) for subject in summary.subjects]
    pairs = {"petct": {"ct", "pet"}, "petmri": {"mr", "pet"}}
    fitting = [name for name, pair in pairs.items() if any(pair <= own for own in held)]
    lines = ["next:"]
    # nobody is in a split yet: enough people are dealt into folds, fewer can only be scored
    split = "data.folds=5" if len(held) >= _FOLDS else "--door evaluate data.split=all"
    lines += [f"  umdseg check data={name} data.manifest={summary.manifest} {split}" for name in fitting]
    if not fitting:
        lines.append("  no subject has a PET/CT or PET/MR pair, so there is no gap to measure yet")
    if fitting:
        lines.append("  or fill the column `split` (train, val, test) by hand")
    return lines


def _structures(summary: Summary) -> str:
    labelled = {s.id for s in summary.subjects if any(scan.label for scan in s.scans.values())}
    told = []
    for name, number in summary.structures.items():
        holders = {row.subject for row in summary.rows if name in row.structures.split()} & labelled
        told.append(f"{name} {number} (in {len(holders)} of {len(labelled)} labelled subjects)")
    return ", ".join(told)


def _table(summary: Summary, out: Path) -> None:
    subjects = list(dict.fromkeys(row.subject for row in summary.rows))
    labelled = {(s.id, m) for s in summary.subjects for m, scan in s.scans.items() if scan.label}
    body = []
    for subject in subjects:
        own = [row for row in summary.rows if row.subject == subject]
        cells = [_cell([r for r in own if r.modality == m], (subject, m) in labelled) for m in MODALITIES]
        label_rows = [row for row in own if row.modality not in MODALITIES]
        body.append([subject, *cells, verdict_of(label_rows) if label_rows else "-"])
    header = ["subject", *MODALITIES, "labels"]
    rest = len(body) - _SHOWN
    if sys.stderr.isatty():
        _rich(header, body[:_SHOWN])
    else:
        widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
        for line in [header, *body[:_SHOWN]]:
            print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip(), file=sys.stderr)
    if rest > 0:
        print(f"... and {rest} more: {out / QA}", file=sys.stderr)


def _rich(header: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header)
    colours = {"pass": "green", "warn": "yellow", "refuse": "red"}
    for subject, *cells in body:
        shown = [f"[{colours.get(cell.split()[0], 'dim')}]{cell}[/]" for cell in cells]
        table.add_row(subject, *shown)
    Console(stderr=True).print(table)


def _cell(rows: Sequence[QaRow], labelled: bool) -> str:
    if not rows:
        return "-"
    return verdict_of(rows) + (" +label" if labelled else "")
