"""What adaptation cost the structures that were not trained, in every modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from umdseg.evaluation.cases import on_grid
from umdseg.evaluation.inputs import as_single
from umdseg.evaluation.people import PerSubject, with_patients
from umdseg.metrics.scores import LOWER_IS_BETTER, METRICS
from umdseg.vocabulary import MODALITIES

if TYPE_CHECKING:
    import pandas as pd


def forgotten(cases: pd.DataFrame, n_resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Loss from zero_shot to adapted, positive when worse.

    A subject's value is the mean over its structures scored in both stages, the reported one the mean over
    subjects, its interval a bootstrap over patients.

    Args:
        cases: case table of the old structures; rows on the label's grid with status `ok` count.
        n_resamples: bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        `{"structures": [...], "forgetting": [{"modality": "ct", "metric": "dice", "prompt": "auto", "stage":
        "adapted", "n_subjects": 8, "n_patients": 8, "n_structures": 5, "value": 0.01, "ci": [-0.01, 0.02]},
        ...]}`; modalities without a score are left out.
    """
    table = with_patients(as_single(on_grid(cases)))
    ok = table[table["status"] == "ok"]
    entries: list[dict[str, Any]] = []
    for modality in MODALITIES:
        for prompt in dict.fromkeys(ok["prompt"]):
            rows = ok[(ok["modality"] == modality) & (ok["prompt"] == prompt)]
            for metric in (m for m in METRICS if m in rows and rows[m].notna().any()):
                head = {"modality": modality, "metric": metric, "prompt": str(prompt), "stage": "adapted"}
                entries += [{**head, **found} for found in _lost(rows, metric, n_resamples, seed)]
    return {"structures": [str(name) for name in dict.fromkeys(table["structure"])], "forgetting": entries}


def _lost(rows: pd.DataFrame, metric: str, n_resamples: int, seed: int) -> list[dict[str, Any]]:
    index = ["patient", "subject", "structure"]
    scores = rows.pivot_table(index=index, columns="stage", values=metric, aggfunc="mean")
    if not {"zero_shot", "adapted"} <= set(scores.columns):
        return []
    pairs = scores[["zero_shot", "adapted"]].dropna()
    if pairs.empty:
        return []
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    lost = PerSubject.of(sign * (pairs["zero_shot"] - pairs["adapted"]))
    interval = lost.interval(n_resamples, seed)
    names = pairs.index.get_level_values("structure")
    entry = {**lost.counts(), "n_structures": int(names.nunique()), "value": lost.mean}
    why = {} if interval.reason is None else {"reason": interval.reason}
    return [{**entry, "ci": interval.as_list(), **why}]
