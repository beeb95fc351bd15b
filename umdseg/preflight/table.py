"""The result on the terminal: one row per check, the same problem told once, what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import IO

from umdseg.data.verdict import LEVELS, Finding
from umdseg.preflight.check import Check, count

EXAMPLES = 3
_COLOURS = {"pass": "green", "warn": "yellow", "refuse": "red"}


def table(
    checks: Sequence[Check], command: str, out: IO[str], verbose: bool = False, deep: bool = False
) -> None:
    """Write rows, problems and a closing sentence.

    Args:
        checks: what was looked at.
        command: the run that was checked, for the closing sentence.
        out: where; a terminal gets a table with colours.
        verbose: name every file instead of three examples.
        deep: whether voxels were read.
    """
    if out.isatty():
        _rich(checks, out)
    else:
        wide = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{check.name:<{wide}}  {check.level:<6}  {check.numbers}", file=out)
    for group in grouped(finding for check in checks for finding in check.findings):
        print(_problem(group, verbose), file=out)
    print(f"\n{closing(checks, command, deep)}", file=out)


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings that differ in names and numbers only, together; the most serious first."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.level != "pass":
            groups.setdefault((finding.level, _kind(finding)), []).append(finding)
    return sorted(groups.values(), key=lambda group: (-LEVELS.index(group[0].level), -len(group)))


def closing(checks: Sequence[Check], command: str, deep: bool) -> str:
    """One sentence: what to do next."""
    levels = [f.level for check in checks for f in check.findings]
    refused, warned = levels.count("refuse"), levels.count("warn")
    if refused:
        return f"Mend what is refused ({count(refused, 'problem')}), then check again."
    start = f"Nothing is refused: {command}"
    if warned:
        return f"{start} ({count(warned, 'warning')} above to read first)"
    return start if deep else f"{start} (--deep would read the voxels too)"


def _kind(finding: Finding) -> str:
    first = finding.what.partition("\n")[0]
    first = re.sub(r"\S*[/\\]\S+", "~", first)
    first = re.sub(r"\b(subjects?) \S+( and \S+)?", r"\1", first)
    return re.sub(r"[\d.,]*\d", "#", first)


def _problem(group: Sequence[Finding], verbose: bool) -> str:
    first = group[0]
    times = f" ({len(group):,} times, for example)" if len(group) > 1 else ""
    lines = [f"\n{first.level}: {first.what}{times}"]
    shown = group if verbose else group[:EXAMPLES]
    lines += [f"    where:    {finding.where}" for finding in shown if finding.where]
    if len(group) > len(shown):
        lines.append(f"    ... and {len(group) - len(shown):,} more (-v names all)")
    if first.expected:
        lines.append(f"    expected: {first.expected}")
    if first.nearest:
        lines.append(f"    did you mean: {first.nearest}")
    return "\n".join(lines)


def _rich(checks: Sequence[Check], out: IO[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = Table(box=None, pad_edge=False)
    for title in ("check", "verdict", "numbers"):
        rows.add_column(title)
    for check in checks:
        # as text: a file's name may look like markup
        rows.add_row(Text(check.name), Text(check.level, style=_COLOURS[check.level]), Text(check.numbers))
    Console(file=out).print(rows)
