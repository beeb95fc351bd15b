"""A comparison of runs as text for people and as rows for a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umdseg.evaluation.selection import Selection
from umdseg.metrics.scores import LOWER_IS_BETTER
from umdseg.report import words
from umdseg.report.words import METRIC, MISSING, STAGE, count, interval, number, with_interval

if TYPE_CHECKING:
    import pandas as pd

Entry = Mapping[str, Any]
_STATISTICS = ("closure", "won_back", "forgetting")
_LEFT = ("#", "")


def text(comparison: Entry) -> Iterator[str]:
    """Lines for the terminal: a table per input and prompt, pairs, notes."""
    rows = comparison["rows"]
    for head in dict.fromkeys((row["modality"], row["prompt"]) for row in rows):
        own = [row for row in rows if (row["modality"], row["prompt"]) == head]
        yield _title(comparison, own)
        yield from _aligned(_cells(own, comparison.get("against_first", ())))
        yield from _reasons(own)
        yield ""
    for pair in comparison.get("pairs", ()):
        yield sentence(pair)
        yield from (f"  {note}" for note in pair["notes"])
    if comparison.get("pairs"):
        yield ""
    yield from (f"note: {note}" for note in comparison["notes"])


def frame(rows: Sequence[Entry]) -> pd.DataFrame:
    """One row per line, input and prompt; statistics as value, low, high and reason."""
    import pandas as pd

    return pd.DataFrame([dict(_flat(row)) for row in rows])


def sentence(pair: Entry) -> str:
    """What a paired difference says, in words."""
    first, second = (_side(pair, name) for name in ("first", "second"))
    value, ci, metric = pair["value"], pair["ci"], pair["metric"]
    if value is None:
        return f"{first} and {second} cannot be compared: {pair['reason']}"
    if ci is None or ci[0] <= 0 <= ci[1]:
        verdict = f"{first} and {second} are not told apart: difference"
    else:
        better = (value < 0) == (metric in LOWER_IS_BETTER)
        verdict = f"{first} {'beats' if better else 'is worse than'} {second} by"
        value, ci = abs(value), sorted(map(abs, ci))
    size = f"{number(value)} {interval(ci)}".strip()
    people = f"n = {_people(pair)}{_p(pair)}"
    return f"{verdict} {size} {METRIC.get(metric, metric)}, {people}; prompt {pair['prompt']}{_labels(pair)}"


def _p(pair: Entry) -> str:
    if pair["p"] is None:
        return ""
    several = pair.get("p_holm") not in (None, pair["p"])
    return f", Wilcoxon p = {pair['p']:.2g}" + (f" (Holm {pair['p_holm']:.2g})" if several else "")


def _side(pair: Entry, side: str) -> str:
    chosen = Selection.parse(pair[side])
    stage = f" {STAGE[chosen.stage]}" if chosen.stage else ""
    return f"{words.modality(chosen.column)}{stage} ({pair[f'{side}_line']}: {pair[f'{side}_label']})"


def _labels(pair: Entry) -> str:
    first, second = (" and ".join(map(words.modality, pair[f"{s}_scored_on"])) for s in ("first", "second"))
    same = f", scored on the {first} label"
    return same if first == second else f"{same} and on the {second} label"


def _title(comparison: Entry, rows: Sequence[Entry]) -> str:
    metric, first = comparison["metric"], rows[0]
    grid = "" if comparison["score_grid"] == "label" else f" on the {comparison['score_grid']} grid"
    told = [
        f"{words.modality(first['modality'])}, prompt {first['prompt']}: {METRIC.get(metric, metric)}{grid}"
    ]
    if _shared(rows, "n_patients", "n_structures"):
        told.append(_people(first))
    if _shared(rows, "seed"):
        told.append(f"seed {first['seed']}")
    if _shared(rows, "steps") and first["steps"] is not None:
        told.append(f"{first['steps']} steps")
    return "; ".join(told)


def _people(row: Entry) -> str:
    return f"{count(row['n_patients'], 'patient')} × {count(row['n_structures'], 'structure')}"


def _shared(rows: Sequence[Entry], *names: str) -> bool:
    return all(row[name] == rows[0][name] for row in rows for name in names)


def _cells(rows: Sequence[Entry], minus_first: Sequence[Entry]) -> list[dict[str, str]]:
    """What differs from line to line and is known of any."""
    own = {
        **{"#": [str(row["line"]) for row in rows], "": [row["label"] for row in rows]},
        "n": [] if _shared(rows, "n_patients", "n_structures") else [_size(row) for row in rows],
        "seed": [] if _shared(rows, "seed") else [str(row["seed"]) for row in rows],
        "parameters": [_parameters(row) for row in rows],
        "share": [_share(row["share"]) for row in rows],
        "steps": [] if _shared(rows, "steps") else [_count(row["steps"]) for row in rows],
        "fit s": [number(row["fit_seconds"], 0) for row in rows],
        "zero-shot": [number(row["zero_shot"]) for row in rows],
        "adapted": [number(row["adapted"]) for row in rows],
        **{name.replace("_", " "): [_value(row[name]) for row in rows] for name in _STATISTICS},
    }
    known = {name: cells for name, cells in own.items() if any(cell != MISSING for cell in cells)}
    table = [{name: cells[place] for name, cells in known.items()} for place in range(len(rows))]
    if not minus_first:
        return table
    return [cells | _minus_first(row, minus_first) for cells, row in zip(table, rows, strict=True)]


def _value(entry: Entry | None) -> str:
    return MISSING if entry is None else with_interval(entry)


def _size(row: Entry) -> str:
    return f"{row['n_patients']} × {row['n_structures']}"


def _minus_first(row: Entry, entries: Sequence[Entry]) -> dict[str, str]:
    """The paired difference to the first line, and its p after Holm."""
    wanted = (row["line"], row["modality"], row["prompt"])
    own = (e for e in entries if (e["first_line"], Selection.parse(e["first"]).column, e["prompt"]) == wanted)
    entry = next(own, None)
    p = None if entry is None else entry["p_holm"]
    return {"minus line 1": with_interval(entry), "p (Holm)": MISSING if p is None else f"{p:.2g}"}


def _parameters(row: Entry) -> str:
    one, several = row["one_route"], row["routes"] not in (None, 1)
    return _count(one) + (f" of {row['trainable']:,}" if several and one is not None else "")


def _share(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.3g} %"


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


def _aligned(table: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Columns two blanks apart; names to the left, numbers to the right."""
    names = list(table[0])
    lines = [names, *([row[name] for name in names] for row in table)]
    widths = [max(len(cells[place]) for cells in lines) for place in range(len(names))]
    for cells in lines:
        padded = [
            cell.ljust(width) if name in _LEFT else cell.rjust(width)
            for name, cell, width in zip(names, cells, widths, strict=True)
        ]
        yield "  " + "  ".join(padded).rstrip()


def _reasons(rows: Sequence[Entry]) -> Iterator[str]:
    """Why a value or its interval is missing, once for all lines it holds for."""
    found: dict[str, list[int]] = {}
    for row in rows:
        for name in _STATISTICS:
            entry = row[name]
            if entry is not None and entry.get("reason") and (entry["value"] is None or entry["ci"] is None):
                found.setdefault(f"{name.replace('_', ' ')}: {entry['reason']}", []).append(row["line"])
            for note in (entry or {}).get("notes", ()):
                found.setdefault(f"{name.replace('_', ' ')}, {note}", []).append(row["line"])
    for told, numbers in found.items():
        yield f"  {'line' if len(numbers) == 1 else 'lines'} {', '.join(map(str, numbers))}: {told}"


def _flat(row: Entry) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if name in _STATISTICS:
            entry = value or {}
            low, high = entry.get("ci") or (None, None)
            told = {"": entry.get("value"), "_low": low, "_high": high, "_reason": entry.get("reason")}
            yield from ((f"{name}{end}", cell) for end, cell in told.items())
        else:
            yield name, " ".join(map(str, value)) if isinstance(value, list) else value
