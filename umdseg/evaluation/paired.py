"""The paired difference of two models, inputs or stages on the same patients."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from umdseg.evaluation.bootstrap import MIN_SUBJECTS
from umdseg.evaluation.match import left_out, matched, other_labels, refuse_other_labels
from umdseg.evaluation.selection import Selection, scores
from umdseg.evaluation.whose import Patients, counted, per_subject, whose

if TYPE_CHECKING:
    import pandas as pd


def paired_difference(
    cases_a: pd.DataFrame,
    cases_b: pd.DataFrame,
    first: Selection | str,
    second: Selection | str | None = None,
    *,
    metric: str = "dice",
    prompt: str | None = None,
    grid: str = "label",
    patients: Patients | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean difference of scores, first minus second, on the subjects and structures scored in both.

    A subject's value is the mean over structures, the difference the mean over subjects. Its interval is a
    bootstrap that resamples patients (see `umdseg.evaluation.bootstrap`): studies and phantom copies of one
    go together. Its p is that of Wilcoxon's signed-rank test over patients' means.

        paired_difference(fused, single, "ct+pet", "pet")      scans together against PET alone
        paired_difference(cases, cases, "pet", "pet@zero_shot")     what adapting won
        paired_difference(lora, full, "pet")

    Args:
        cases_a: case table of the first.
        cases_b: case table of the second; may be the same.
        first: `MODALITY[/SUBSET][@STAGE]` (see `umdseg.evaluation.selection`); without a stage the last one.
        second: of the second table; None = as the first.
        metric: column of scores.
        prompt: kind of prompt in both; None = the only one each has.
        grid: label or common. Scores of scans given together are on the grid of the reference scan's label,
            those of one scan on its own: `common` puts both on one grid.
        patients: subject -> patient; None = as the tables say, else as far as names tell.
        n_resamples: bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        `{"first": "ct+pet", "second": "pet", "metric": "dice", "prompt": "auto", "score_grid": "label",
        "value": 0.05, "ci": [0.01, 0.09], "p": 0.02, "first_mean": ..., "second_mean": ..., "n_patients": 18,
        "n_subjects": 18, "n_structures": 1, "notes": [...]}`; undefined values are None with a `reason`,
        `notes` say what was left out and whether both were scored on the same labels.

    Raises:
        UserError: rows that are not there, or the same scan under other labels.
    """
    one = first if isinstance(first, Selection) else Selection.parse(first)
    other = one if second is None else second if isinstance(second, Selection) else Selection.parse(second)
    a, b = scores(cases_a, one, metric, prompt, grid), scores(cases_b, other, metric, prompt, grid)
    known = {**whose(cases_a), **whose(cases_b)} if patients is None else patients
    notes = _notes(one, other, a, b)
    head = {"first": str(one), "second": str(other), "metric": metric, "prompt": _prompts(a, b)}
    found = _difference(a, b, known, n_resamples, seed)
    return {**head, "score_grid": grid, **found, "notes": notes}


def _difference(a: pd.DataFrame, b: pd.DataFrame, patients: Patients, n: int, seed: int) -> dict[str, Any]:
    pairs = matched({"first": a, "second": b})
    entry: dict[str, Any] = dict.fromkeys(("value", "ci", "p", "first_mean", "second_mean"))
    entry |= counted(pairs, patients)
    if pairs.empty:
        reasons = [
            f"{name} {table.attrs['why']}" for name, table in (("first", a), ("second", b)) if table.empty
        ]
        return {**entry, "reason": "; ".join(["nothing is scored in both", *reasons])}
    difference = per_subject(pairs["first"] - pairs["second"], patients)
    interval = difference.interval(n, seed)
    entry |= {"value": difference.mean, "ci": interval.as_list(), "p": signed_rank(difference.means)}
    entry |= {f"{name}_mean": per_subject(pairs[name], patients).mean for name in pairs}
    return entry if interval.reason is None else {**entry, "reason": interval.reason}


def _notes(one: Selection, other: Selection, a: pd.DataFrame, b: pd.DataFrame) -> list[str]:
    """What was left out, and whether both were scored on the same labels and asked alike."""
    names = (str(one), str(other)) if one != other else (f"the first's {one}", f"the second's {other}")
    notes = left_out(names, a, b)
    if one.column == other.column:
        refuse_other_labels(names, a, b)
    elif told := other_labels(a, b):
        notes.append(f"not scored on one label and grid: {told}")
    if a.attrs["prompt"] != b.attrs["prompt"]:
        notes.append(f"asked by {a.attrs['prompt']} and by {b.attrs['prompt']}")
    return notes


def _prompts(a: pd.DataFrame, b: pd.DataFrame) -> str:
    return "/".join(dict.fromkeys([a.attrs["prompt"], b.attrs["prompt"]]))


def signed_rank(values: ArrayLike) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test (Biometrics Bulletin 1945), zeros left out.

    Args:
        values: (n,) differences.

    Returns:
        None where nothing differs or there are fewer than three values.
    """
    from scipy.stats import wilcoxon

    differences = np.asarray(values, dtype=float)
    if len(differences) < MIN_SUBJECTS or not differences.any():
        return None
    with warnings.catch_warnings():
        # with ties the normal approximation stands in for the exact distribution
        warnings.simplefilter("ignore")
        return float(wilcoxon(differences).pvalue)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """P-values of several tests, adjusted after Holm (Scand J Statist 1979); None is not a test."""
    told = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    worst = 0.0
    for rank, (p, place) in enumerate(told):
        worst = max(worst, min(1.0, (len(told) - rank) * p))
        adjusted[place] = worst
    return adjusted
