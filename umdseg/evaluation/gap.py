"""The modality gap, how much of it adaptation closes, and what adaptation breaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from umdseg.errors import UserError
from umdseg.evaluation.bootstrap import mean_interval, ratio_interval
from umdseg.evaluation.cases import NO_LABEL, on_grid
from umdseg.evaluation.inputs import as_single
from umdseg.evaluation.options import BASELINES
from umdseg.evaluation.patients import PerSubject, with_patients
from umdseg.metrics.scores import LOWER_IS_BETTER, METRICS
from umdseg.vocabulary import STAGES

if TYPE_CHECKING:
    import pandas as pd

_PAIRS = (("ct", "pet"), ("ct", "mr"), ("mr", "pet"))


@dataclass(frozen=True)
class _Question:
    """One line of gap.json, and the subjects that can answer it."""

    reference: str
    target: str
    metric: str
    prompt: str
    subjects: frozenset[str]

    def head(self, stage: str) -> dict[str, Any]:
        names = {"reference": self.reference, "target": self.target, "metric": self.metric}
        return {**names, "prompt": self.prompt, "stage": stage}


def gap(cases: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Gap, closure and forgetting of a case table, the content of gap.json.

    The reference modality of a subject is ct, or mr where the subject has no ct. Only rows with
    status `ok` count, and only structures scored on both sides of a comparison. A subject's value
    is the mean over its structures, the reported one the mean over subjects, its interval a
    bootstrap over patients: several subjects of one patient (two time points, say) are drawn together.

    * gap = score(reference) - score(target);
    * closure = (target after - target before) / (reference before - target before), on the same
      subjects and structures, null unless the target was worse and the interval of that gap
      excludes 0;
    * forgetting = what the reference modality lost from zero_shot to adapted, positive when worse.

    A gap is between single scans: rows of scans given together (`ct+pet`) take no part in it.

    Scores on each label's own grid and on the common grid are never compared with each other: `common` holds
    the same lists from the rows with score_grid `common`, all else rests on the rows on the label's grid.

    Args:
        cases: case table of one model; rows of trivial baselines are left out.
        n_resamples: bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        `{"gaps": [...], "closure": [...], "forgetting": [...], "adapter": None, "common": {"gaps": ...}}`;
        undefined values are None with a `reason`. The caller fills in `adapter`.

    Raises:
        UserError: several models or adapters in one stage, which cannot be told apart in gap.json.
    """
    table = _model_rows(cases)
    common = _answers(on_grid(table, "common"), n_resamples, seed)
    return {**_answers(on_grid(table), n_resamples, seed), "adapter": None, "common": common}


def _answers(table: pd.DataFrame, n_resamples: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = {"gaps": [], "closure": [], "forgetting": []}
    for question, rows in _questions(table):
        stages = [stage for stage in STAGES if stage in set(rows["stage"])]
        for stage in stages:
            out["gaps"].append(_gap_entry(question, rows, stage, n_resamples, seed))
        if {"zero_shot", "adapted"} <= set(stages):
            out["closure"].append(_closure_entry(question, rows, n_resamples, seed))
            out["forgetting"].append(_forgetting_entry(question, rows, n_resamples, seed))
    return out


def _model_rows(cases: pd.DataFrame) -> pd.DataFrame:
    table = with_patients(as_single(cases))
    if "model" in table:
        table = table[~table["model"].isin(BASELINES)]
    for column in ("model", "adapter", "fusion"):
        for stage, rows in table.groupby("stage") if column in table else ():
            if rows[column].nunique() > 1:
                raise UserError(
                    f"the case table has several values of '{column}' in stage {stage}",
                    where=", ".join(sorted(map(str, rows[column].unique()))),
                    expected="one per stage; select the rows before asking for the gap",
                )
    return table


def _questions(table: pd.DataFrame) -> Iterator[tuple[_Question, pd.DataFrame]]:
    seen = table[table["status"] != "modality_absent"]
    has = seen.groupby("subject")["modality"].agg(set).to_dict() if len(seen) else {}
    # a metric computed for anything is asked of everything: what it cannot answer gets a reason
    asked = [m for m in METRICS if m in table and table[m].notna().any()]
    for reference, target in _PAIRS:
        subjects = frozenset(
            str(s)
            for s, owned in has.items()
            if {reference, target} <= owned and (reference == "ct" or "ct" not in owned)
        )
        pair = seen[seen["subject"].isin(subjects) & seen["modality"].isin([reference, target])]
        for prompt in dict.fromkeys(pair["prompt"]):
            rows = pair[pair["prompt"] == prompt]
            for metric in asked:
                yield _Question(reference, target, metric, str(prompt), subjects), rows


def _scores(rows: pd.DataFrame, question: _Question) -> pd.DataFrame:
    """Index (patient, subject, structure), one column per (stage, modality); only rows with status ok."""
    ok = rows[(rows["status"] == "ok") & rows[question.metric].notna()]
    index, columns = ["patient", "subject", "structure"], ["stage", "modality"]
    return ok.pivot_table(index=index, columns=columns, values=question.metric, aggfunc="mean")


def _paired(rows: pd.DataFrame, question: _Question, cells: list[tuple[str, str]]) -> pd.DataFrame | None:
    """The (subject, structure) pairs scored in all cells (stage, modality), or None."""
    scores = _scores(rows, question)
    if not all(cell in scores.columns for cell in cells):
        return None
    complete = scores[cells].dropna()
    return complete if len(complete) else None


def _counts(pairs: pd.DataFrame | None) -> dict[str, int]:
    levels = ("subject", "patient", "structure")
    if pairs is None:
        return {f"n_{level}s": 0 for level in levels}
    return {f"n_{level}s": int(pairs.index.get_level_values(level).nunique()) for level in levels}


def _reasoned(entry: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return entry if reason is None else {**entry, "reason": reason}


def _gap_entry(
    question: _Question, rows: pd.DataFrame, stage: str, n_resamples: int, seed: int
) -> dict[str, Any]:
    pairs = _paired(rows, question, [(stage, question.reference), (stage, question.target)])
    head = question.head(stage)
    if pairs is None:
        return {**head, "gap": None, "ci": None, **_counts(None), "reason": _nothing(rows, question, [stage])}
    found = PerSubject.of(pairs[(stage, question.reference)] - pairs[(stage, question.target)])
    interval = mean_interval(found.values, n_resamples, seed, groups=found.patients)
    entry = {**head, "gap": found.mean, "ci": interval.as_list(), **_counts(pairs)}
    return _reasoned(entry, interval.reason)


def _closure_entry(question: _Question, rows: pd.DataFrame, n_resamples: int, seed: int) -> dict[str, Any]:
    before, target = ("zero_shot", question.reference), ("zero_shot", question.target)
    after = ("adapted", question.target)
    pairs = _paired(rows, question, [before, target, after])
    entry = {**question.head("adapted"), "value": None, "ci": None, **_counts(pairs)}
    if pairs is None:
        return {**entry, "reason": _nothing(rows, question, ["zero_shot", "adapted"])}
    opened, closed = (PerSubject.of(pairs[cell] - pairs[target]) for cell in (before, after))
    interval = mean_interval(opened.values, n_resamples, seed, groups=opened.patients)
    if not interval.excludes(0.0):
        why = interval.reason if interval.low is None else "the gap before is not distinguishable from 0"
        return {**entry, "reason": why}
    worse = opened.mean < 0 if question.metric in LOWER_IS_BETTER else opened.mean > 0
    if not worse:
        why = f"{question.target} was better than {question.reference} before, there is no gap to close"
        return {**entry, "reason": why}
    interval = ratio_interval(closed.values, opened.values, n_resamples, seed, groups=opened.patients)
    return _reasoned({**entry, "value": closed.mean / opened.mean, "ci": interval.as_list()}, interval.reason)


def _forgetting_entry(question: _Question, rows: pd.DataFrame, n_resamples: int, seed: int) -> dict[str, Any]:
    before, after = ("zero_shot", question.reference), ("adapted", question.reference)
    pairs = _paired(rows, question, [before, after])
    entry = {**question.head("adapted"), "value": None, "ci": None, **_counts(pairs)}
    if pairs is None:
        reference = rows[rows["modality"] == question.reference]
        return {**entry, "reason": _nothing(reference, question, ["zero_shot", "adapted"])}
    sign = -1.0 if question.metric in LOWER_IS_BETTER else 1.0
    lost = PerSubject.of(sign * (pairs[before] - pairs[after]))
    interval = mean_interval(lost.values, n_resamples, seed, groups=lost.patients)
    return _reasoned({**entry, "value": lost.mean, "ci": interval.as_list()}, interval.reason)


def _nothing(rows: pd.DataFrame, question: _Question, stages: list[str]) -> str:
    """Why no structure of no subject could be compared, by the statuses found."""
    asked = rows[rows["stage"].isin(stages)]
    found: dict[str, set[str]] = {}
    columns = ["stage", "modality", "status", "condition"]
    for row in asked[columns].astype(str).itertuples(index=False):
        # a scan that has no label is not one whose label is empty
        why = NO_LABEL if row.condition == NO_LABEL else str(row.status)
        found.setdefault(f"{row.stage} {row.modality}", set()).add(why)
    listed = "; ".join(f"{cell}: {'/'.join(sorted(statuses))}" for cell, statuses in found.items())
    return f"no structure is scored on both sides ({listed})"
