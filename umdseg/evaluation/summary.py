"""Means of a case table: per modality, structure and stage, with intervals over patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from umdseg.evaluation.cases import on_grid
from umdseg.evaluation.inputs import columns_of
from umdseg.evaluation.options import BASELINES
from umdseg.evaluation.people import PerSubject, with_patients
from umdseg.metrics.scores import LOWER_IS_BETTER, METRICS

if TYPE_CHECKING:
    import pandas as pd

MACRO = "macro"
_GROUP = ("model", "adapter", "stage", "prompt", "modality")


def summarise(
    cases: pd.DataFrame, metric: str = "dice", n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Mean score per structure, and over structures, of every model, stage, prompt and modality.

    Args:
        cases: case table; only rows on the label's grid with status `ok` and a value count.
        metric: column to average.
        n_resamples: bootstrap resamples of the interval.
        seed: seed of the bootstrap.

    Returns:
        Columns model, adapter, stage, prompt, modality, structure, mean, low, high, n_subjects, n_patients.
        `modality` is `ct+pet` for scans given together, `ct+pet given ct` where the model of several scans
        had to do with fewer. `structure` is `macro` where a subject's value is the mean over its structures.
    """
    import pandas as pd

    table = with_patients(on_grid(cases))
    table = table.assign(modality=columns_of(table))
    ok = table[(table["status"] == "ok") & table[metric].notna()]
    rows: list[dict[str, Any]] = []
    for names, group in ok.groupby(list(_GROUP), sort=False):
        head = dict(zip(_GROUP, names, strict=True))
        parts = [(MACRO, group)] + [(str(s), part) for s, part in group.groupby("structure", sort=False)]
        for structure, part in parts:
            values = PerSubject.of(part.set_index(["patient", "subject"])[metric])
            interval = values.interval(n_resamples, seed)
            found = {"mean": values.mean, "low": interval.low, "high": interval.high, **values.counts()}
            rows.append({**head, "structure": structure, **found})
    columns = [*_GROUP, "structure", "mean", "low", "high", "n_subjects", "n_patients"]
    return pd.DataFrame(rows, columns=columns).astype({"mean": float, "low": float, "high": float})


def main_metric(cases: pd.DataFrame) -> str:
    """The metric a page about the table's own model shows: dice if it was computed, else the first that was.

    First in the order of METRICS. Rows of baselines, and of supervised networks beside the model's own, do
    not decide; where nothing has a score it is dice.
    """
    own = cases[~cases["model"].isin(BASELINES)]
    beside = own["stage"] == "supervised"
    own = own if beside.all() else own[~beside]
    ok = own[own["status"] == "ok"]
    return next((metric for metric in METRICS if metric in ok and ok[metric].notna().any()), METRICS[0])


def without_distance(cases: pd.DataFrame, metric: str) -> pd.Series:
    """Which rows were scored and yet have no value of a distance: their predictions are empty."""
    asked = (cases["status"] == "ok") & (metric in LOWER_IS_BETTER)
    return asked & cases[metric].isna() & ~(cases["volume_pred_ml"] > 0)


def macro(summary: pd.DataFrame, **wanted: str) -> dict[str, Any] | None:
    """The macro row of a summary that matches `wanted` (column=value), or None."""
    rows = summary[summary["structure"] == MACRO]
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return None if rows.empty else {str(k): v for k, v in rows.iloc[0].items()}


def structures_of(summary: pd.DataFrame) -> Sequence[str]:
    """Structure names in the order of first appearance, without macro."""
    return [s for s in dict.fromkeys(summary["structure"]) if s != MACRO]
