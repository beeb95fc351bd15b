"""How much of what a supervised model of the modality has over the base model an adapter wins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from umdseg.evaluation.match import left_out, matched, refuse_other_labels
from umdseg.evaluation.selection import Selection, last_stage, scores
from umdseg.evaluation.whose import Patients, counted, per_subject, whose
from umdseg.metrics.scores import LOWER_IS_BETTER

if TYPE_CHECKING:
    import pandas as pd


def won_back(
    cases: pd.DataFrame,
    supervised: pd.DataFrame,
    selection: Selection | str,
    *,
    metric: str = "dice",
    prompt: str | None = None,
    grid: str = "label",
    patients: Patients | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """(mean adapted - mean zero-shot) / (mean supervised - mean zero-shot).

    On the subjects and structures scored in all three; the interval resamples patients, as in
    `umdseg.evaluation.paired_difference`. 1 = as good as the supervised model, 0 = no better than the base.

    Args:
        cases: case table with zero_shot and adapted rows.
        supervised: case table of the model that was trained on the modality: a network from scratch or full
            tuning; its last stage counts. Where it was not asked by the same prompt, its only one counts.
        selection: which scans.
        metric: column of scores.
        prompt: kind of prompt; None = the only one.
        grid: label or common.
        patients: subject -> patient; None = as the tables say, else as far as names tell.
        n_resamples: bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        `{"modality": "pet", "metric": "dice", "prompt": "auto", "score_grid": "label", "value": 0.83, "ci":
        [0.78, 0.88], "zero_shot": 0.31, "adapted": 0.70, "supervised": 0.78, "n_patients": 18, "n_subjects":
        18, "n_structures": 13, "notes": []}`. `value` is None with a `reason` where the supervised model does
        not beat the base distinguishably.

    Raises:
        UserError: rows that are not there, or other labels under the same names.
    """
    asked = selection if isinstance(selection, Selection) else Selection.parse(selection)
    one = asked.at("")
    before = scores(cases, one.at("zero_shot"), metric, prompt, grid)
    after = scores(cases, one, metric, before.attrs["prompt"], grid)
    best = scores(supervised, one, metric, _prompt(supervised, one, before.attrs["prompt"]), grid)
    refuse_other_labels(("the run", "the supervised run"), after, best)
    refuse_other_labels(("zero_shot", "the supervised run"), before, best)
    pairs = matched({"zero_shot": before, "adapted": after, "supervised": best})
    known = {**whose(cases), **whose(supervised)} if patients is None else patients
    notes = left_out(("the run", "the supervised run"), after, best)
    if best.attrs["prompt"] != before.attrs["prompt"]:
        notes.append(f"the supervised model was asked by {best.attrs['prompt']}")
    entry: dict[str, Any] = {
        **{"modality": one.column, "metric": metric, "prompt": before.attrs["prompt"], "score_grid": grid},
        **{"value": None, "ci": None, "zero_shot": None, "adapted": None, "supervised": None},
        **counted(pairs, known),
        "notes": notes,
    }
    if after.attrs["stage"] == "zero_shot":
        return {**entry, "reason": "nothing was trained"}
    if pairs.empty:
        sides = {"zero_shot": before, "adapted": after, "supervised": best}
        reasons = [f"{name}: {table.attrs['why']}" for name, table in sides.items() if table.empty]
        return {**entry, "reason": "; ".join(["nothing is scored in all three", *reasons])}
    entry |= {str(name): per_subject(pairs[name], known).mean for name in pairs}
    won = per_subject(pairs["adapted"] - pairs["zero_shot"], known)
    lead = per_subject(pairs["supervised"] - pairs["zero_shot"], known)
    sure = lead.interval(n_resamples, seed)
    if not sure.excludes(0.0):
        chance = "the supervised model is not distinguishable from zero-shot"
        return {**entry, "reason": sure.reason if sure.low is None else chance}
    if (lead.mean < 0) != (metric in LOWER_IS_BETTER):
        return {**entry, "reason": "the supervised model is worse than zero-shot"}
    interval = won.share(lead, n_resamples, seed)
    entry |= {"value": won.mean / lead.mean, "ci": interval.as_list()}
    return entry if interval.reason is None else {**entry, "reason": interval.reason}


def _prompt(supervised: pd.DataFrame, selection: Selection, wanted: str) -> str | None:
    """The prompt asked for, or None (the only one) where the supervised model was not asked so."""
    rows = selection.rows(supervised)
    return wanted if (rows[rows["stage"] == last_stage(rows)]["prompt"] == wanted).any() else None
