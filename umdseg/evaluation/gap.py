"""The modality gap, how much of it adaptation closes, and what adaptation breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from umdseg.errors import UserError
from umdseg.evaluation.cases import KEY, on_grid
from umdseg.evaluation.excess import excess_entry
from umdseg.evaluation.inputs import as_single
from umdseg.evaluation.options import BASELINES
from umdseg.evaluation.pairs import SUPERVISED, Question, Scores, counts, nothing, questions, reasoned
from umdseg.evaluation.people import PerSubject, with_patients
from umdseg.metrics.scores import LOWER_IS_BETTER, METRICS
from umdseg.vocabulary import STAGES

if TYPE_CHECKING:
    import pandas as pd


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
    * forgetting = what the reference modality lost from zero_shot to adapted, positive when worse;
    * excess = (gap of the model) - (gap of supervised networks): PET is harder for everybody, and this is
      what the model adds. Where the table has rows of stage `supervised` beside the model's (another run's,
      put below them: one network for all modalities, or one for each).

    A gap is between single scans: rows of scans given together (`ct+pet`) take no part in it.

    Scores on each label's own grid and on the common grid are never compared with each other: `common` holds
    the same lists from the rows with score_grid `common`, all else rests on the rows on the label's grid.

    Args:
        cases: case table of one model, with or without supervised networks beside it; rows of trivial
            baselines are left out.
        n_resamples: bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        `{"gaps": [...], "closure": [...], "forgetting": [...], "excess": [...], "adapter": None, "common":
        {"gaps": ...}}`; undefined values are None with a `reason`. The caller fills in `adapter`. Entries of
        `excess` name the supervised networks' own gap on the same pairs, and how these were asked.

    Raises:
        UserError: several models or adapters in one stage (of supervised networks: in one modality), which
            cannot be told apart in gap.json; one measurement with two results.
    """
    table = _model_rows(cases)
    common = _answers(on_grid(table, "common"), n_resamples, seed)
    return {**_answers(on_grid(table), n_resamples, seed), "adapter": None, "common": common}


def _answers(table: pd.DataFrame, n_resamples: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = {"gaps": [], "closure": [], "forgetting": [], "excess": []}
    for question, pair in questions(table):
        scores = Scores(pair[pair["prompt"] == question.prompt], question.metric)
        stages = [stage for stage in STAGES if stage in set(scores.rows["stage"])]
        for stage in stages:
            out["gaps"].append(_gap_entry(question, scores, stage, n_resamples, seed))
        if {"zero_shot", "adapted"} <= set(stages):
            out["closure"].append(_closure_entry(question, scores, n_resamples, seed))
            out["forgetting"].append(_forgetting_entry(question, scores, n_resamples, seed))
        if (pair["stage"] == SUPERVISED).any():
            for stage in (s for s in stages if s != SUPERVISED):
                out["excess"].append(excess_entry(question, pair, stage, n_resamples, seed))
    return out


def _model_rows(cases: pd.DataFrame) -> pd.DataFrame:
    # before `as_single`: a baseline's rows of one scan would stand for the model's of the same stage
    own = cases[~cases["model"].isin(BASELINES)] if "model" in cases else cases
    table = with_patients(as_single(own))
    supervised = table["stage"] == SUPERVISED
    _refuse_several(table[~supervised], ["stage"])
    # each modality may have a network of its own
    _refuse_several(table[supervised], ["stage", "modality"])
    _refuse_contradictions(table)
    return table


def _refuse_several(table: pd.DataFrame, keys: list[str]) -> None:
    for column in (c for c in ("model", "adapter", "fusion") if c in table):
        for values, rows in table.groupby(keys):
            if rows[column].nunique() > 1:
                place = ", ".join(f"{key} {value}" for key, value in zip(keys, values, strict=True))
                raise UserError(
                    f"the case table has several values of '{column}' in {place}",
                    where=", ".join(sorted(map(str, rows[column].unique()))),
                    expected=f"one per {' and '.join(keys)}; select the rows before asking for the gap",
                )


def _refuse_contradictions(table: pd.DataFrame) -> None:
    """Rows of two runs under one name (a sweep over ranks, say) would be averaged without a word."""
    key = [column for column in KEY if column in table]
    measured = [metric for metric in METRICS if metric in table]
    twice = table[table.duplicated(key, keep=False) & (table["status"] == "ok")]
    if twice.empty or not measured:
        return
    spread = twice.groupby(key, dropna=False)[measured].nunique().max(axis=1)
    if (spread > 1).any():
        worst: Any = spread.idxmax()
        first = dict(zip(key, worst, strict=True))
        raise UserError(
            f"{int((spread > 1).sum())} measurements stand twice in the case table, with different results",
            where=", ".join(
                f"{name} {first[name]}" for name in ("subject", "modality", "structure", "stage")
            ),
            expected="the rows of one run, or of several that differ in subjects, fold or seed",
        )


def _gap_entry(question: Question, scores: Scores, stage: str, n_resamples: int, seed: int) -> dict[str, Any]:
    cells = question.cells(stage)
    pairs = scores.paired(cells)
    head = question.head(stage)
    if pairs is None:
        return {**head, "gap": None, "ci": None, **counts(None), "reason": nothing(scores.rows, [stage])}
    found = PerSubject.of(pairs[(stage, question.reference)] - pairs[(stage, question.target)])
    interval = found.interval(n_resamples, seed)
    entry = {**head, "gap": found.mean, "ci": interval.as_list(), **counts(pairs)}
    return reasoned(entry, interval.reason, scores.undefined(cells))


def _closure_entry(question: Question, scores: Scores, n_resamples: int, seed: int) -> dict[str, Any]:
    before, target = ("zero_shot", question.reference), ("zero_shot", question.target)
    after = ("adapted", question.target)
    cells = [before, target, after]
    pairs = scores.paired(cells)
    entry = {**question.head("adapted"), "value": None, "ci": None, **counts(pairs)}
    if pairs is None:
        return {**entry, "reason": nothing(scores.rows, ["zero_shot", "adapted"])}
    opened, closed = (PerSubject.of(pairs[cell] - pairs[target]) for cell in (before, after))
    interval = opened.interval(n_resamples, seed)
    if not interval.excludes(0.0):
        why = interval.reason if interval.low is None else "the gap before is not distinguishable from 0"
        return {**entry, "reason": why}
    worse = opened.mean < 0 if question.metric in LOWER_IS_BETTER else opened.mean > 0
    if not worse:
        why = f"{question.target} was better than {question.reference} before, there is no gap to close"
        return {**entry, "reason": why}
    interval = closed.share(opened, n_resamples, seed)
    entry |= {"value": closed.mean / opened.mean, "ci": interval.as_list()}
    return reasoned(entry, interval.reason, scores.undefined(cells))


def _forgetting_entry(question: Question, scores: Scores, n_resamples: int, seed: int) -> dict[str, Any]:
    before, after = ("zero_shot", question.reference), ("adapted", question.reference)
    pairs = scores.paired([before, after])
    entry = {**question.head("adapted"), "value": None, "ci": None, **counts(pairs)}
    if pairs is None:
        reference = scores.rows[scores.rows["modality"] == question.reference]
        return {**entry, "reason": nothing(reference, ["zero_shot", "adapted"])}
    sign = -1.0 if question.metric in LOWER_IS_BETTER else 1.0
    lost = PerSubject.of(sign * (pairs[before] - pairs[after]))
    interval = lost.interval(n_resamples, seed)
    entry |= {"value": lost.mean, "ci": interval.as_list()}
    return reasoned(entry, interval.reason, scores.undefined([before, after]))
