"""What keeps two lines of a comparison from being comparable, in plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from umdseg.runs.finished import FinishedRun
from umdseg.runs.lines import Line

# settings under which a score means something else, whatever was trained
_MEANING = (
    *("data.split", "data.reference", "evaluation.label", "evaluation.overlap", "evaluation.precision"),
    *("evaluation.box_margin_mm", "evaluation.box_jitter_mm"),
)
_TOLERANCE = "evaluation.tolerance_mm"


def unlike(one: Line, other: Line, metric: str, name: str = "") -> list[str]:
    """What two lines do not share of data, folds, code, base weights and ways of scoring.

    Args:
        one: first line.
        other: second line.
        metric: that is compared.
        name: of the second, where that is not its number.
    """
    names = f"line {one.number} and {name}" if name else f"lines {one.number} and {other.number}"
    return [f"{names}: {told}" for told in _differences(one, other, metric)]


def _differences(one: Line, other: Line, metric: str) -> Iterator[str]:
    if one.folds != other.folds:
        yield f"other folds ({_folds(one)} and {_folds(other)})"
    # a fingerprint covers the split, so it is one per fold
    theirs = {run.fold: run for run in other.runs}
    for run in one.runs:
        if run.fold in theirs and _data(run) != _data(theirs[run.fold]):
            both = f"{_short(_data(run))} and {_short(_data(theirs[run.fold]))}"
            yield f"other data ({both}): files, scans or split"
            break
    if _base(one.first) == _base(other.first) and _differ(one, other, _weights):
        yield "other weights of the same base model"
    if _differ(one, other, lambda run: run.provenance.get("code")):
        yield "run by other versions of the code"
    settings = (*_MEANING, *((_TOLERANCE,) if metric == "nsd" else ()))
    for path in settings:
        told = [line.first.settings[path] for line in (one, other) if path in line.first.settings]
        # what an older run does not know it was not asked
        if len(told) == 2 and told[0] != told[1]:
            yield f"{path} {told[0]} and {told[1]}"


def _differ(one: Line, other: Line, fact: Callable[[FinishedRun], Any]) -> bool:
    return {fact(run) for run in one.runs} != {fact(run) for run in other.runs}


def _data(run: FinishedRun) -> str:
    told = run.provenance.get("data", {})
    return f"{told.get('name')} {told.get('fingerprint')}"


def _short(data: str) -> str:
    name, _, fingerprint = data.partition(" ")
    return f"{name} {fingerprint[:8]}"


def _base(run: FinishedRun) -> str:
    return str(run.settings.get("model.name"))


def _weights(run: FinishedRun) -> Any:
    return run.provenance.get("weights", {}).get("state_sha256")


def _folds(line: Line) -> str:
    return ", ".join(map(str, line.folds)) or "none"
