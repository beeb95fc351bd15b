"""Rows of supervised networks from their own runs, for the excess gap."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umdseg.adapters import AdapterCard
from umdseg.backbones.base import Backbone
from umdseg.config.schema import Settings
from umdseg.errors import UserError
from umdseg.evaluation.cases import case_table, merge, read_cases
from umdseg.evaluation.inputs import in_order
from umdseg.evaluation.options import BASELINES
from umdseg.runs.stages import trained_stage
from umdseg.vocabulary import MODALITIES, Subject

if TYPE_CHECKING:
    import pandas as pd

_WHERE = "evaluation.supervised"


def supervised_rows(
    settings: Settings,
    backbone: Backbone,
    dataset: str,
    subjects: Sequence[Subject],
    structures: Collection[str],
) -> pd.DataFrame:
    """Rows of the runs that `evaluation.supervised` names, as far as the model is scored on the same.

    Each network counts in the modalities it was trained on, and never on subjects of its training split.

    Args:
        settings: checked configuration.
        backbone: the model scored here.
        dataset: its data set's name.
        subjects: who it is scored on.
        structures: those scored.

    Raises:
        UserError: a run without rows of stage supervised, of scans given together, on another data set, on
            none of the subjects or structures; two networks of one modality; the model scored here is such a
            network itself.
    """
    runs = [Path(run).expanduser() for run in settings.evaluation.supervised]
    if runs and trained_stage(backbone, settings.adapter.name) == "supervised":
        what = "the network trained here is itself a supervised one, and has no excess over another"
        raise UserError(what, where=_WHERE, expected="nothing, or a pretrained model")
    tables = [_of_run(run, dataset) for run in runs]
    seen: dict[str, Path] = {}
    for run, table in zip(runs, tables, strict=True):
        for modality in table["modality"].unique():
            if modality in seen:
                what = f"two networks are the supervised one for {modality}"
                expected = "one per modality; data.train_modalities tells what a run was trained on"
                raise UserError(what, where=f"{_WHERE}: {seen[modality]} and {run}", expected=expected)
            seen[modality] = run
    rows = merge(tables)
    wanted = rows["subject"].isin([subject.id for subject in subjects]) & rows["structure"].isin(structures)
    shared = rows[wanted & rows["modality"].isin(settings.data.modalities)]
    if runs and shared.empty:
        what = "the supervised networks were scored on none of the subjects, structures and modalities here"
        raise UserError(what, where=_WHERE, expected="runs on the same test subjects")
    return case_table(shared.reset_index(drop=True))


def _of_run(run: Path, dataset: str) -> pd.DataFrame:
    cases = read_cases(run)
    rows = cases[(cases["stage"] == "supervised") & ~cases["model"].isin(BASELINES)]
    if rows.empty:
        what = "the run has no rows of stage supervised"
        expected = "a run of a network trained from scratch: train.py model=unet adapter=full"
        raise UserError(what, where=f"{_WHERE}: {run}", expected=expected)
    rows = _alone(run, rows)
    names = sorted(set(rows["dataset"]))
    if names != [dataset]:
        what = (
            f"the supervised network was scored on data set '{', '.join(names)}', this model on '{dataset}'"
        )
        raise UserError(what, where=f"{_WHERE}: {run}", expected="the same data set")
    rows = rows[rows["split"] != "train"]
    learned = _trained_on(run)
    return rows if learned is None else rows[rows["modality"].isin(learned)]


def _alone(run: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of single scans, between which the gap is."""
    alone = rows[rows["modality"].isin(MODALITIES)]
    if alone.empty:
        together = " and ".join(in_order(map(str, rows["modality"].unique())))
        what = f"rows of scans given together ({together}) cannot be the supervised reference of single scans"
        expected = "a network of single scans: train.py model=unet adapter=full fusion=none"
        raise UserError(what, where=f"{_WHERE}: {run}", expected=expected)
    return alone


def _trained_on(run: Path) -> list[str] | None:
    """Modalities that a run's network saw in training; None where its adapter is gone."""
    folders = [run / "adapter"]
    record = run / "provenance.json"
    told: Any = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    # evaluate.py scores an adapter that lies in another run
    folders += [Path(told["adapter"])] if told.get("adapter") else []
    for folder in folders:
        try:
            return AdapterCard.read(folder).modalities or None
        except UserError:
            continue
    return None
