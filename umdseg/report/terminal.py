"""The result as a table on standard error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from umdseg.evaluation.cases import on_grid
from umdseg.evaluation.inputs import columns_of, in_order
from umdseg.evaluation.options import BASELINES
from umdseg.evaluation.summary import macro, summarise
from umdseg.report import words
from umdseg.report.words import (
    METRIC,
    MISSING,
    MODALITY,
    STAGE,
    number,
    pairs,
    random_notice,
    select,
    together_notice,
    with_interval,
)
from umdseg.vocabulary import STAGES

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table


def print_result(
    cases: pd.DataFrame,
    result: Mapping[str, Any],
    metric: str = "dice",
    console: Console | None = None,
    *,
    random_weights: bool = False,
    terms: str = "",
) -> None:
    """Print one table per prompt: modalities across; scores, gaps, closure and forgetting down.

    Scans given together have a table of their own below, so that 80 columns hold either.

    Args:
        cases: case table.
        result: content of gap.json.
        metric: column shown.
        console: where to print; None = standard error.
        random_weights: the base model was not trained; said beside the numbers.
        terms: what the licence of the weights restricts; said beside the numbers.
    """
    from rich.console import Console

    console = console or Console(stderr=True)
    own = cases[~cases["model"].isin(BASELINES)]
    for prompt in dict.fromkeys(own["prompt"]):
        for together in (False, True):
            table = result_table(cases, result, str(prompt), metric, together=together)
            if len(table.columns) > 1:
                console.print(table)
    if random_weights:
        console.print(" ".join(random_notice(own["stage"])), style="bold")
    if terms:
        console.print(terms)
    columns = in_order(columns_of(own))
    if any(column in MODALITY for column in columns):
        console.print("gap = reference - target, same subjects and structures; [95 % CI over patients]")
    if notice := together_notice(columns):
        console.print(notice)


def result_table(
    cases: pd.DataFrame,
    result: Mapping[str, Any],
    prompt: str,
    metric: str = "dice",
    *,
    together: bool = False,
) -> Table:
    """The table of one prompt.

    Args:
        cases: case table.
        result: content of gap.json.
        prompt: prompt kind.
        metric: column shown.
        together: show scans that were given together, instead of single ones.
    """
    from rich.table import Table

    # intervals of the means are not shown here, so few resamples do
    summary = summarise(cases, metric, n_resamples=100)
    rows = on_grid(cases[cases["prompt"] == prompt])
    modalities = [c for c in in_order(columns_of(rows)) if (c not in MODALITY) == together]
    table = Table(title=f"macro {METRIC.get(metric, metric)}, prompt {prompt}", title_justify="left")
    # 80 columns hold three intervals only without rules between them
    table.box, table.title_style, table.pad_edge, table.padding = None, "bold", False, (0, 0, 0, 2)
    table.add_column("", no_wrap=True)
    for modality in modalities:
        table.add_column(words.modality(modality), justify="right", no_wrap=True)
    shown = summary[summary["modality"].isin(modalities)]
    own = shown[~shown["model"].isin(BASELINES)]
    for stage in (s for s in STAGES if (own["stage"] == s).any()):
        means = [_mean(own, stage=stage, prompt=prompt, modality=m) for m in modalities]
        table.add_row(STAGE[stage], *means)
    for name, kind, when in _LINES:
        cells = [_cell(result, kind, when, m, prompt, metric) for m in modalities]
        if any(cell != MISSING for cell in cells):
            table.add_row(name, *cells)
    lost = [_lost(result, m, prompt, metric) for m in modalities]
    if any(cell != MISSING for cell in lost):
        table.add_row("forgetting, old structures", *lost)
    for baseline in (b for b in BASELINES if not together and (rows["model"] == b).any()):
        means = [_mean(summary, model=baseline, prompt=prompt, modality=m) for m in modalities]
        table.add_row(baseline, *means, style="dim")
    return table


_LINES = (
    ("gap before", "gaps", "zero_shot"),
    ("gap after", "gaps", "adapted"),
    ("supervised gap", "gaps", "supervised"),
    ("closure", "closure", "adapted"),
    ("forgetting", "forgetting", "adapted"),
    ("excess before", "excess", "zero_shot"),
    ("excess after", "excess", "adapted"),
)


def _cell(result: Mapping[str, Any], kind: str, stage: str, modality: str, prompt: str, metric: str) -> str:
    """Gaps and closure stand under the target, forgetting under the reference modality."""
    side = 0 if kind == "forgetting" else 1
    found = next((p for p in pairs(result) if p[side] == modality and p[2:] == (metric, prompt)), None)
    if found is None:
        return MISSING
    entry = select(
        result.get(kind, []), reference=found[0], target=found[1], metric=metric, prompt=prompt, stage=stage
    )
    return with_interval(entry, "gap" if kind == "gaps" else "value")


def _lost(result: Mapping[str, Any], modality: str, prompt: str, metric: str) -> str:
    """What a modality lost of the structures that were not trained."""
    entries = result.get("old_structures", {}).get("forgetting", [])
    return with_interval(select(entries, modality=modality, prompt=prompt, metric=metric), "value")


def _mean(summary: pd.DataFrame, **wanted: str) -> str:
    row = macro(summary, **wanted)
    return MISSING if row is None else number(row["mean"])
