"""The excess gap: what a model's gap has over that of networks trained on each modality itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from umdseg.evaluation.pairs import SUPERVISED, Question, Scores, counts, nothing, reasoned
from umdseg.evaluation.people import PerSubject

if TYPE_CHECKING:
    import pandas as pd

# the same label on the same grid has the same volume; only its rounding may differ
_SAME_VOLUME = 1e-6


def excess_entry(
    question: Question, pair: pd.DataFrame, stage: str, n_resamples: int, seed: int
) -> dict[str, Any]:
    """Entry of gap.json: (gap of the model) - (gap of the supervised networks), positive when larger.

    Both gaps are of the same subjects and structures, scored against the same labels (reference volumes must
    agree: one name may stand for two data sets, and the common field of view depends on what is scored).
    Supervised networks that were not asked by the model's prompt count as they were asked, by class.

    Args:
        question: pair of modalities, metric and prompt.
        pair: rows of the pair, with those of stage `supervised`.
        stage: of the model.
        n_resamples: bootstrap resamples.
        seed: seed of the bootstrap.
    """
    own = pair[(pair["prompt"] == question.prompt) & (pair["stage"] == stage)]
    theirs = pair[pair["stage"] == SUPERVISED]
    prompt = question.prompt if (theirs["prompt"] == question.prompt).any() else "auto"
    theirs = theirs[theirs["prompt"] == prompt]
    unknown = {"value": None, "ci": None, "supervised": None, "supervised_prompt": prompt}
    entry = {**question.head(stage), **unknown}
    missing = [m for m in (question.reference, question.target) if not (theirs["modality"] == m).any()]
    if missing:
        why = f"no supervised network was scored on {' and '.join(missing)}"
        return {**entry, **counts(None), "reason": why}
    scores = Scores(_joined(own, theirs), question.metric)
    cells = [*question.cells(stage), *question.cells(SUPERVISED)]
    pairs = scores.paired(cells)
    if pairs is None:
        return {**entry, **counts(None), "reason": nothing(scores.rows, [stage, SUPERVISED])}
    pairs = pairs[_same_labels(scores, pairs, question, stage)]
    if pairs.empty:
        why = "the supervised networks were scored against other labels, or in another common field of view"
        return {**entry, **counts(None), "reason": why}
    reference, target, best_reference, best_target = (pairs[cell] for cell in cells)
    found = PerSubject.of((reference - target) - (best_reference - best_target))
    interval = found.interval(n_resamples, seed)
    entry |= {"value": found.mean, "ci": interval.as_list()}
    entry |= {"supervised": PerSubject.of(best_reference - best_target).mean, **counts(pairs)}
    return reasoned(entry, interval.reason, scores.undefined(cells))


def _joined(own: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([own, theirs], ignore_index=True)


def _same_labels(scores: Scores, pairs: pd.DataFrame, question: Question, stage: str) -> Any:
    """(n,) bool: which pairs have the same reference volume on both sides; unknown volumes are the same."""
    same = np.ones(len(pairs), dtype=bool)
    if "volume_ref_ml" not in scores.rows or scores.rows["volume_ref_ml"].isna().all():
        return same
    volumes = scores.spread("volume_ref_ml").reindex(pairs.index)
    for one, other in zip(question.cells(stage), question.cells(SUPERVISED), strict=True):
        if one in volumes and other in volumes:
            near = np.isclose(volumes[one], volumes[other], rtol=_SAME_VOLUME, atol=0)
            same &= near | volumes[[one, other]].isna().any(axis=1).to_numpy()
    return same
