"""Scores of the structures that a model knew and that were not trained, before and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from umdseg.config.schema import PromptSection
from umdseg.evaluation.cases import merge, read_cases, write_cases
from umdseg.inference.plain import plain
from umdseg.runs.evaluate import scored
from umdseg.runs.job import Job, say
from umdseg.runs.zero_shot import ZeroShotStore

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "old_structures"


def old_structures(job: Job) -> tuple[str, ...]:
    """Structures of the dataset that the base knows by class and this run does not look for."""
    if not job.settings.evaluation.old_structures:
        return ()
    rest = (name for name in job.dataset.structures if name not in job.structures)
    return tuple(name for name in rest if job.backbone.card.knows(name))


def score_old(job: Job) -> pd.DataFrame | None:
    """Case table of the old structures, zero-shot and adapted, written to `old_structures/` of the run.

    By class where the model is asked so, else by the first kind of prompt that it takes. None where there are
    no such structures, or no prompt for them.
    """
    names, card = old_structures(job), job.backbone.card
    wanted = job.settings.prompt.kinds
    ordered = sorted(wanted, key=lambda kind: kind != "auto")
    kinds = [str(kind) for kind in ordered if kind in card.prompts][:1]
    if not names or not kinds:
        return None
    say(f"old structures, for what was forgotten: {', '.join(names)}")
    settings = replace(job.settings, prompt=PromptSection(kinds))
    asked = replace(job, settings=settings, structures=names)
    tables = [_before(asked), scored(asked, "adapted", settings.adapter.name, keep=False)]
    cases = merge(tables)
    write_cases(cases, job.path / FOLDER)
    return cases


def _before(job: Job) -> pd.DataFrame:
    """Zero-shot, or the table an earlier run made of the same."""
    kept = _kept(job)
    if kept is not None and (kept / "cases.parquet").is_file():
        return read_cases(kept).assign(fold=job.settings.fold, shots=job.settings.data.shots)
    with plain(job.backbone) as base:
        cases = scored(replace(job, backbone=base), "zero_shot", "none", keep=False)
    if kept is not None:
        write_cases(cases, kept)
    return cases


def _kept(job: Job) -> Path | None:
    store: ZeroShotStore | None = job.store()
    # beside the store of a run that looks for these structures: that one keeps predictions, too
    return None if store is None else store.folder.with_name(f"{store.folder.name}-old")
