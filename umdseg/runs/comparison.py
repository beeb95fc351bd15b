"""Finished runs side by side: the content of comparison.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from umdseg.errors import UserError, unknown
from umdseg.evaluation.cases import on_grid
from umdseg.evaluation.gap import gap
from umdseg.evaluation.inputs import JOINT, parts_of
from umdseg.evaluation.match import left_out, matched, other_labels
from umdseg.evaluation.selection import Selection, columns, holds, measured, scores, stages
from umdseg.evaluation.summary import without_distance
from umdseg.evaluation.whose import counted, per_subject
from umdseg.evaluation.won_back import won_back
from umdseg.metrics.scores import METRICS
from umdseg.runs.goal import goal_for, refuse_unsupervised
from umdseg.runs.lines import Line, differing
from umdseg.runs.unlike import unlike

Entry = dict[str, Any]
RESAMPLES = 2000


@dataclass(frozen=True)
class Asked:
    """What is compared.

    Attributes:
        metric: column of scores.
        grid: label or common.
        modalities: inputs (`pet`, `ct+pet`, `ct+pet/ct`); empty = target modalities and scans given together.
        prompts: kinds of prompt; empty = all.
        bootstrap: resamples; None = as each run's own evaluation.bootstrap (2000 between runs).
        seed: seed of the bootstrap between runs; that of one run's closure is the run's own, as in gap.json.
    """

    metric: str = "dice"
    grid: str = "label"
    modalities: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    bootstrap: int | None = None
    seed: int = 0


def compare(lines: Sequence[Line], against: Sequence[Line], asked: Asked) -> dict[str, Any]:
    """Scores, costs, closure, forgetting and what was won back, per line, input and prompt.

    Args:
        lines: from `umdseg.runs.lines.lines_of`.
        against: supervised models, one per modality; empty = nothing is won back.
        asked: metric, grid, which rows.

    Returns:
        `{"metric", "score_grid", "lines": [...], "against": [...], "rows": [...], "notes": [...]}`; undefined
        values are None with a `reason`.

    Raises:
        UserError: inputs or prompts that no line has, a metric that a run lacks, or goals that are none.
    """
    refuse_unsupervised(against)
    _refuse_unmeasured(lines, asked.metric)
    wanted = inputs(lines, asked)
    _refuse_unknown_prompts(lines, asked)
    rows, notes = [], []
    for line in lines:
        found = gap(_narrow(line, asked), _resamples(line, asked), line.seed)
        rows += list(_rows(line, found, wanted, against, asked))
        notes += unlike(lines[0], line, asked.metric) if line is not lines[0] else []
    for goal in against:
        notes += unlike(lines[0], goal, asked.metric, f"the goal {goal.label}")
    rows = [row for column in wanted for row in rows if row["modality"] == column]
    shown = {row["line"] for row in rows}
    for line in (line for line in lines if line.number not in shown):
        notes.append(f"line {line.number}, {line.label}, has rows of {', '.join(columns(line.cases))} only")
    notes += list(_uneven(lines, rows, asked))
    notes += list(_empty(lines, rows, asked))
    apart = differing(lines)
    told = [{**_told(line), "settings": {n: line.first.asked().get(n) for n in apart}} for line in lines]
    goals = [_told(line) for line in against]
    head = {"metric": asked.metric, "score_grid": asked.grid, "lines": told, "against": goals}
    return {**head, "rows": rows, "notes": list(dict.fromkeys(notes))}


def inputs(lines: Sequence[Line], asked: Asked) -> list[str]:
    """The inputs asked for, as reports name them; else all, with gaps all but the reference scans."""
    known = list(dict.fromkeys(column for line in lines for column in columns(line.cases)))
    if asked.modalities:
        wanted = [Selection.parse(text).column for text in asked.modalities]
        for column in wanted:
            if not any(holds(line.cases, column) for line in lines):
                raise unknown("scans", column, known, where="--modality")
        return list(dict.fromkeys(wanted))
    single = [column for column in ("ct", "mr", "pet") if column in known]
    # ct, else mr, is what the others have a gap to
    gaps = len(single) > 1 and any("zero_shot" in stages(line.cases) for line in lines)
    return [column for column in known if not gaps or column != single[0]]


def _refuse_unknown_prompts(lines: Sequence[Line], asked: Asked) -> None:
    known = list(dict.fromkeys(str(kind) for line in lines for kind in line.cases["prompt"].unique()))
    for kind in asked.prompts:
        if kind not in known:
            raise unknown("prompt", kind, known, where="--prompt")


def _refuse_unmeasured(lines: Sequence[Line], metric: str) -> None:
    """Of folds put together one that lacks the metric would leave the means in silence."""
    for run in (run for line in lines for run in line.runs):
        known = measured(run.cases)
        # where the run was asked for a distance and has none, its predictions are empty
        if metric in (*known, *(run.settings.get("evaluation.metrics") or ())) or not known:
            continue
        more = f"evaluation.metrics=[{','.join([*known, metric])}]"
        expected = f"--metric {' or '.join(known)}; or a run with {more}"
        what = f"'{metric}' was not computed in a run"
        raise UserError(what, where=run.path, expected=expected, nearest=f"--metric {known[0]}")


def selection_of(column: str) -> Selection:
    """The rows of a column (`ct+pet given ct`)."""
    takes, given = parts_of(column)
    return Selection(JOINT.join(takes), "" if takes == given else JOINT.join(given))


def _rows(
    line: Line, found: Entry, wanted: Sequence[str], against: Sequence[Line], asked: Asked
) -> Iterator[Entry]:
    statistics = found["common"] if asked.grid == "common" else found
    for column in (c for c in wanted if holds(line.cases, c)):
        selection = selection_of(column)
        for prompt in prompts_of(line, selection, asked):
            head = {"line": line.number, "label": line.label, "modality": column, "prompt": prompt}
            goal = goal_for(column, against) if against else None
            yield {
                **head,
                **_configuration(line),
                **_scores(line, selection, prompt, asked),
                "closure": _statistic(statistics["closure"], column, prompt),
                "forgetting": _statistic(statistics["forgetting"], column, prompt),
                "won_back": None if goal is None else _won(line, goal, selection, prompt, asked),
            }


def prompts_of(line: Line, selection: Selection, asked: Asked) -> list[str]:
    """Kinds of prompt that the rows of an input have, as far as they are asked for."""
    held = [str(kind) for kind in selection.rows(line.cases)["prompt"].unique()]
    return [kind for kind in held if not asked.prompts or kind in asked.prompts]


def _configuration(line: Line) -> Entry:
    run = line.first
    name, size = run.size
    told = {"model": run.settings.get("model.name"), "adapter": run.method, "size_name": name, "size": size}
    told |= {"fusion": line.fusion, "stage": run.stage, **line.cost()}
    return {**told, "seed": line.seed, "folds": line.folds, "runs": line.names}


def _scores(line: Line, selection: Selection, prompt: str, asked: Asked) -> Entry:
    """Means before and after on what is scored in both, or of what there is."""
    held = selection.stages(line.cases)
    last = next(stage for stage in ("supervised", "adapted", "zero_shot") if stage in held)
    found = {
        name: scores(line.cases, selection.at(stage), asked.metric, prompt, asked.grid)
        for name, stage in (("zero_shot", "zero_shot"), ("adapted", last if last != "zero_shot" else ""))
        if stage in held
    }
    scored = {name: table for name, table in found.items() if len(table)}
    pairs, patients = matched(scored or found), line.patients()
    means = {str(n): per_subject(pairs[n], patients).mean if len(pairs) else None for n in pairs}
    return {"zero_shot": None, "adapted": None, **means, **counted(pairs, patients)}


def _statistic(entries: Sequence[Entry], target: str, prompt: str) -> Entry:
    """The entry of gap.json with the most subjects, where a target has several references."""
    fitting = [e for e in entries if (e["target"], e["prompt"]) == (target, prompt)]
    if not fitting:
        return {"value": None, "ci": None, "reason": "not scored before and after beside another modality"}
    best = max(fitting, key=lambda e: (e["value"] is not None, e["n_subjects"]))
    kept = ("reference", "value", "ci", "n_patients", "n_subjects", "n_structures", "reason")
    return {name: best[name] for name in kept if name in best}


def _won(line: Line, goal: Line | str, selection: Selection, prompt: str, asked: Asked) -> Entry:
    none: Entry = {"value": None, "ci": None}
    if isinstance(goal, str):
        return {**none, "reason": goal}
    try:
        found = won_back(
            line.cases,
            goal.cases,
            selection,
            metric=asked.metric,
            prompt=prompt,
            grid=asked.grid,
            patients={**goal.patients(), **line.patients()},
            n_resamples=asked.bootstrap or RESAMPLES,
            seed=asked.seed,
        )
    except UserError as error:
        return {
            **none,
            "goal": goal.label,
            "reason": f"{error.what} ({error.where})" if error.where else error.what,
        }
    return {"goal": goal.label, **found}


def _uneven(lines: Sequence[Line], rows: Sequence[Entry], asked: Asked) -> Iterator[str]:
    """Lines that are not scored on what the first of them is scored on."""
    for column, prompt in dict.fromkeys((row["modality"], row["prompt"]) for row in rows):
        numbers = [row["line"] for row in rows if (row["modality"], row["prompt"]) == (column, prompt)]
        held = [line for line in lines if line.number in numbers]
        tables = [scores(e.cases, selection_of(column), asked.metric, prompt, asked.grid) for e in held]
        for line, table in zip(held[1:], tables[1:], strict=True):
            names = (f"line {held[0].number}", f"line {line.number}")
            told = left_out(names, tables[0], table)
            labels = other_labels(tables[0], table)
            yield from (f"{column} {prompt}, {text}" for text in told)
            if labels:
                yield f"{column} {prompt}, {names[0]} and {names[1]} have other labels: {labels}"


def _empty(lines: Sequence[Line], rows: Sequence[Entry], asked: Asked) -> Iterator[str]:
    """Lines with predictions that are empty, so that means of a distance are of the others alone."""
    for row in rows:
        line = next(line for line in lines if line.number == row["line"])
        selection = selection_of(row["modality"])
        for stage in selection.stages(line.cases):
            held = on_grid(selection.at(stage).rows(line.cases), asked.grid)
            held = held[(held["prompt"] == row["prompt"]) & (held["status"] == "ok")]
            number = int(without_distance(held, asked.metric).sum())
            if number:
                where = f"line {line.number}, {row['modality']} {row['prompt']}, {stage}"
                verb = "has" if number == 1 else "have"
                why = f"{verb} no {asked.metric} (empty prediction) and no part in its means"
                yield f"{where}: {number} of {len(held)} rows {why}"


def _told(line: Line) -> Entry:
    model, folder = line.first.settings.get("model.name"), line.names
    return {"number": line.number, "label": line.label, "model": model, "runs": folder, "folds": line.folds}


def _narrow(line: Line, asked: Asked) -> Any:
    return line.cases.drop(columns=[name for name in METRICS if name != asked.metric])


def _resamples(line: Line, asked: Asked) -> int:
    return int(asked.bootstrap or line.first.settings.get("evaluation.bootstrap") or RESAMPLES)
