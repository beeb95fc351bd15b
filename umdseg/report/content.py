"""What the page says: sentences and table rows from gap.json and the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umdseg.evaluation.inputs import columns_of, in_order
from umdseg.evaluation.options import BASELINES
from umdseg.evaluation.summary import MACRO, macro, structures_of
from umdseg.report.words import METRIC, MODALITY, STAGE, count, meaning, number, pairs, people, select, size
from umdseg.vocabulary import MODALITIES

if TYPE_CHECKING:
    import pandas as pd

Result = Mapping[str, Any]
# cells of a row: list of gap.json, stage (None: it has one alone), in words
_CELLS: dict[str, tuple[str, str | None, str]] = {
    "before": ("gaps", "zero_shot", "gap before"),
    "after": ("gaps", "adapted", "gap after"),
    "supervised": ("gaps", "supervised", "gap of the supervised"),
    "closure": ("closure", None, "closure"),
    "forgetting": ("forgetting", None, "forgetting"),
    "excess_before": ("excess", "zero_shot", "excess gap before"),
    "excess_after": ("excess", "adapted", "excess gap after"),
}


def headlines(result: Result, summary: pd.DataFrame, metric: str = "dice") -> list[dict[str, Any]]:
    """One card per target modality: the gap before and after, closure and forgetting.

    A prompt with a defined gap is preferred, `auto` before the others.

    Args:
        result: content of gap.json.
        summary: from `umdseg.evaluation.summarise`, of the metric.
        metric: whose gap.
    """
    cards = []
    shown = [p for p in pairs(result) if p[2] == metric]
    for reference, target in dict.fromkeys(p[:2] for p in shown):
        prompts = [p[3] for p in shown if p[:2] == (reference, target)]
        gaps = {p: _find(result, "gaps", reference, target, p, metric) for p in prompts}
        defined = [p for p, entry in gaps.items() if entry and entry["gap"] is not None]
        prompt = (defined or prompts)[0]
        asked = (reference, target, prompt, metric)
        # a network trained from scratch has no before
        before = _find(result, "gaps", *asked, "zero_shot") or _find(result, "gaps", *asked, "supervised")
        after = _find(result, "gaps", *asked, "adapted")
        cards.append(
            {
                "target": target,
                "reference": reference,
                "prompt": prompt,
                "before": before,
                "after": after,
                "closure": _find(result, "closure", *asked),
                "forgetting": _find(result, "forgetting", *asked),
                "sentence": _sentence(before, summary, metric),
            }
        )
    return cards


def together_cards(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """One card per combination of scans given together: macro score by stage, `auto` before other prompts."""
    rows = summary[summary["structure"] == MACRO]
    cards = []
    for column in (c for c in in_order(rows["modality"]) if c not in MODALITIES):
        own = rows[rows["modality"] == column]
        prompt = str(min(own["prompt"], key=lambda p: p != "auto"))
        found = {s: macro(own, stage=s, prompt=prompt) for s in STAGE}
        stages = {s: row for s, row in found.items() if row}
        most = max(stages.values(), key=lambda row: int(row["n_subjects"]))
        cards.append({"column": column, "prompt": prompt, "stages": stages, "people": people(most)})
    return cards


def _sentence(entry: Mapping[str, Any] | None, summary: pd.DataFrame, metric: str) -> str:
    if entry is None:
        return ""
    if entry["gap"] is None:
        return f"No gap before adaptation: {entry['reason']}."
    wanted = {"stage": entry["stage"], "prompt": entry["prompt"]}
    scores = {m: macro(summary, modality=m, **wanted) for m in (entry["reference"], entry["target"])}
    means = ", ".join(f"{number(s['mean'], 2)} on {MODALITY[m]}" for m, s in scores.items() if s)
    scored = f"{people(entry)} and {count(entry['n_structures'], 'structure')}"
    verdict = "" if entry["ci"] is None else _verdict(entry["ci"])
    stage = STAGE[entry["stage"]].capitalize()
    what = f"{stage} macro {METRIC[metric]} over all scans"
    return f"{what}: {means}. The gap is of the {scored} scored in both{verdict}."


def _verdict(ci: list[float]) -> str:
    if ci[0] <= 0 <= ci[1]:
        return "; its interval includes 0, so it may be chance"
    return "; its interval excludes 0"


def gap_rows(result: Result) -> list[dict[str, Any]]:
    """One row per score grid, pair, metric and prompt: gaps before and after, closure, forgetting."""
    rows = _gap_rows(result, "label")
    common = _gap_rows(result["common"], "common") if "common" in result else []
    said = [row["reasons"] for row in rows]
    # what holds on both grids is said once
    return rows + [{**row, "reasons": [] if row["reasons"] in said else row["reasons"]} for row in common]


def _gap_rows(result: Result, grid: str) -> list[dict[str, Any]]:
    rows = []
    for reference, target, metric, prompt in pairs(result):
        found = {
            cell: _find(result, kind, reference, target, prompt, metric, stage)
            for cell, (kind, stage, _) in _CELLS.items()
        }
        told = [f"{_CELLS[cell][2]}: {e['reason']}" for cell, e in found.items() if e and e.get("reason")]
        reasons = list(dict.fromkeys(told))
        counted = next((e for e in found.values() if e and e["n_subjects"]), None)
        n = size(counted) if counted and "n_structures" in counted else "0"
        head = {"reference": reference, "target": target, "metric": metric, "prompt": prompt, "grid": grid}
        rows.append({**head, **found, "n": n, "reasons": reasons})
    return rows


def _find(
    result: Result,
    kind: str,
    reference: str,
    target: str,
    prompt: str,
    metric: str,
    stage: str | None = None,
) -> Mapping[str, Any] | None:
    # runs made before there was an excess gap have none
    entries = result.get(kind, [])
    wanted = {"reference": reference, "target": target, "prompt": prompt, "metric": metric}
    return select(entries, **wanted, **({"stage": stage} if stage else {}))


def organ_table(summary: pd.DataFrame, prompt: str) -> dict[str, Any]:
    """Mean score per structure: columns are (modality, stage), rows structures and their macro mean.

    Scans given together come after the single ones.
    """
    rows = summary[summary["prompt"] == prompt]
    columns = [
        (m, s)
        for m in in_order(rows["modality"])
        for s in STAGE
        if ((rows["modality"] == m) & (rows["stage"] == s)).any()
    ]
    body = []
    for name in (*structures_of(rows), MACRO):
        cells = []
        for modality, stage in columns:
            hit = rows[
                (rows["structure"] == name) & (rows["modality"] == modality) & (rows["stage"] == stage)
            ]
            cells.append(None if hit.empty else float(hit["mean"].iloc[0]))
        body.append({"name": name, "cells": cells})
    return {"columns": columns, "rows": body}


def unscored_rows(cases: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows without a score, counted per model, stage, prompt, modality and reason."""
    rows = cases[cases["status"] != "ok"]
    told = [meaning(str(s), str(c)) for s, c in zip(rows["status"], rows["condition"], strict=True)]
    keys = ["model", "stage", "prompt", "modality", "status", "meaning"]
    rows = rows.assign(meaning=told, modality=columns_of(rows))
    counted = rows.groupby(keys, sort=False).size().rename("rows").reset_index()
    return [{str(k): v for k, v in row.items()} for row in counted.to_dict("records")]


def scan_rows(scans: Sequence[Mapping[str, str]]) -> dict[str, Any] | None:
    """The scans that were not simply right, how many were, and all of them; None without scans."""
    if not scans:
        return None
    problems = [scan for scan in scans if scan["verdict"] != "pass"]
    shares = [float(scan["common_fov"]) for scan in scans if scan["common_fov"]]
    least = min(shares) if shares else None
    return {"passed": len(scans) - len(problems), "problems": problems, "all": scans, "least": least}


def baseline_rows(summary: pd.DataFrame) -> dict[str, Any] | None:
    """Macro score of baselines beside the model's; None when there are no baselines."""
    rivals = [b for b in BASELINES if (summary["model"] == b).any()]
    if not rivals:
        return None
    rows = summary[summary["structure"] == MACRO]
    groups = list(
        dict.fromkeys(rows[["model", "adapter", "stage", "prompt"]].itertuples(index=False, name=None))
    )
    groups.sort(key=lambda g: g[0] in BASELINES)
    body, columns = [], in_order([*MODALITIES, *rows["modality"]])
    for model, adapter, stage, prompt in groups:
        wanted = {"model": model, "adapter": adapter, "stage": stage, "prompt": prompt}
        cells = [macro(rows, modality=m, **wanted) for m in columns]
        trivial = model in BASELINES
        body.append({"model": model, "stage": stage, "prompt": prompt, "cells": cells, "baseline": trivial})
    return {"rivals": rivals, "columns": columns, "rows": body}
