"""Paired differences between lines of a comparison: `1:ct+pet 2:pet`, or every line against the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from umdseg.errors import UserError
from umdseg.evaluation.inputs import JOINT
from umdseg.evaluation.paired import holm, paired_difference
from umdseg.evaluation.selection import Selection, columns, holds, scored_on
from umdseg.runs.comparison import RESAMPLES, Asked, Entry, prompts_of, selection_of
from umdseg.runs.lines import Line
from umdseg.vocabulary import MODALITIES

Side = tuple[Line, Selection | None]
_FORM = "RUN[:MODALITY[/SUBSET][@STAGE]], RUN the number of a line or one of its folders"


def side(text: str, lines: Sequence[Line]) -> Side:
    """One side of a pair: a line, and which of its rows (None: every input that both sides have).

    Args:
        text: `2`, `2:pet`, `FOLDER:ct+pet/ct`, `2:pet@zero_shot`.
        lines: of the comparison.

    Raises:
        UserError: no such line, or a selection that is none.
    """
    name, colon, rows = text.rpartition(":")
    if not colon or rows.partition("@")[0].partition("/")[0].partition(JOINT)[0] not in MODALITIES:
        # a folder may have a colon in its name
        name, rows = text, ""
    line = next((line for line in lines if _is(line, name)), None)
    if line is None:
        known = "; ".join(f"{line.number}: {line.names[0]}" for line in lines)
        raise UserError(f"'{name}' is no line of this comparison", where=known, expected=_FORM)
    return line, Selection.parse(rows) if rows else None


def differences(pairs: Sequence[tuple[Side, Side]], asked: Asked) -> list[Entry]:
    """Paired differences, first minus second, of each pair, input and prompt.

    Raises:
        UserError: a pair without rows to compare, or under other labels.
    """
    return [entry for first, second in pairs for entry in _of_pair(first, second, asked)]


def adjusted(entries: Sequence[Entry]) -> list[Entry]:
    """With `p_holm`, the p-values adjusted after Holm over all that are told together."""
    ps = holm([entry["p"] for entry in entries])
    return [{**entry, "p_holm": p} for entry, p in zip(entries, ps, strict=True)]


def against_first(
    lines: Sequence[Line], asked: Asked, wanted: Sequence[str]
) -> tuple[list[Entry], list[str]]:
    """Every line minus the first on the inputs that both have (`p_holm` over all), and why some are not."""
    entries: list[Entry] = []
    notes: list[str] = []
    for line in lines[1:]:
        for column in (c for c in wanted if all(holds(one.cases, c) for one in (line, lines[0]))):
            rows = selection_of(column)
            try:
                entries += differences([((line, rows), (lines[0], rows))], asked)
            except UserError as error:
                where = f" ({error.where})" if error.where else ""
                notes.append(
                    f"{column}, line {line.number} minus line {lines[0].number}: {error.what}{where}"
                )
    return adjusted(entries), notes


def _of_pair(first: Side, second: Side, asked: Asked) -> Iterator[Entry]:
    (one, a), (other, b) = first, second
    if a is None and b is None:
        shared = [c for c in columns(one.cases) if c in columns(other.cases)]
        sides = [(selection_of(c), selection_of(c)) for c in shared]
    else:
        both = a or b
        assert both is not None
        sides = [(a or both, b or both)]
    for mine, theirs in sides:
        held = prompts_of(one, mine, asked)
        prompts = [kind for kind in held if kind in prompts_of(other, theirs, asked)]
        if not prompts:
            where = f"{one.label}: {', '.join(held)}"
            raise UserError(f"{mine} and {theirs} were asked by no prompt in common", where=where)
        yield from (_entry((one, mine), (other, theirs), prompt, asked) for prompt in prompts)


def _entry(first: tuple[Line, Selection], second: tuple[Line, Selection], prompt: str, asked: Asked) -> Entry:
    (one, a), (other, b) = first, second
    found = paired_difference(
        one.cases,
        other.cases,
        a,
        b,
        metric=asked.metric,
        prompt=prompt,
        grid=asked.grid,
        patients={**other.patients(), **one.patients()},
        n_resamples=asked.bootstrap or RESAMPLES,
        seed=asked.seed,
    )
    names: dict[str, Any] = {"first_line": one.number, "second_line": other.number}
    names |= {"first_label": one.label, "second_label": other.label}
    names |= {"first_scored_on": _scored_on(one, a), "second_scored_on": _scored_on(other, b)}
    return {**names, **found}


def _scored_on(line: Line, selection: Selection) -> list[str]:
    return scored_on(selection.rows(line.cases), str(line.first.settings.get("data.reference") or "ct"))


def _is(line: Line, name: str) -> bool:
    asked = Path(name).expanduser()
    if asked.is_dir():
        return any(run.path.resolve() == asked.resolve() for run in line.runs)
    return name == str(line.number) or name in line.names
