"""What is compared with what: a question of gap.json, and the scores that can answer it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from umdseg.evaluation.cases import NO_LABEL
from umdseg.metrics.scores import METRICS

if TYPE_CHECKING:
    import pandas as pd

PAIRS = (("ct", "pet"), ("ct", "mr"), ("mr", "pet"))
SUPERVISED = "supervised"
INDEX = ["patient", "subject", "structure"]
Cell = tuple[str, str]


@dataclass(frozen=True)
class Question:
    """One line of gap.json, and the subjects that can answer it."""

    reference: str
    target: str
    metric: str
    prompt: str
    subjects: frozenset[str]

    def head(self, stage: str) -> dict[str, Any]:
        """What its entry starts with."""
        names = {"reference": self.reference, "target": self.target, "metric": self.metric}
        return {**names, "prompt": self.prompt, "stage": stage}

    def cells(self, stage: str) -> list[Cell]:
        """The reference's and the target's column of a stage."""
        return [(stage, self.reference), (stage, self.target)]


def questions(table: pd.DataFrame) -> Iterator[tuple[Question, pd.DataFrame]]:
    """Every pair of modalities, prompt and metric, with the rows of the pair and of all prompts.

    The reference modality of a subject is ct, or mr where the model saw no ct of the subject.
    """
    seen = table[table["status"] != "modality_absent"]
    own = seen[seen["stage"] != SUPERVISED]
    # what supervised networks saw besides says nothing about the model
    told = seen[(seen["stage"] != SUPERVISED) | ~seen["subject"].isin(own["subject"])]
    has = told.groupby("subject")["modality"].agg(set).to_dict() if len(told) else {}
    # a metric computed for anything is asked of everything: what it cannot answer gets a reason
    asked = [m for m in METRICS if m in table and table[m].notna().any()]
    for reference, target in PAIRS:
        subjects = frozenset(
            str(s)
            for s, owned in has.items()
            if {reference, target} <= owned and (reference == "ct" or "ct" not in owned)
        )
        pair = seen[seen["subject"].isin(subjects) & seen["modality"].isin([reference, target])]
        for prompt in dict.fromkeys(pair["prompt"]):
            for metric in asked:
                yield Question(reference, target, metric, str(prompt), subjects), pair


@dataclass(frozen=True)
class Scores:
    """Scores by patient, subject and structure down, stage and modality across.

    Attributes:
        rows: of a pair of modalities and one prompt.
        metric: column of scores.
    """

    rows: pd.DataFrame
    metric: str

    def paired(self, cells: Sequence[Cell]) -> pd.DataFrame | None:
        """What is scored in all cells (stage, modality): index INDEX, one column per cell; or None."""
        if not all(cell in self._table.columns for cell in cells):
            return None
        complete = self._table[list(cells)].dropna()
        return complete if len(complete) else None

    def undefined(self, cells: Sequence[Cell]) -> str | None:
        """What `paired` leaves out although it was scored: an empty prediction has no distance."""
        if not self._bare.any() or not all(cell in self._blank.columns for cell in cells):
            return None
        number = int((self._blank[list(cells)].dropna() > 0).any(axis=1).sum())
        told = "structure of a subject is" if number == 1 else "structures of subjects are"
        return f"{number} {told} left out: an empty prediction has no {self.metric}" if number else None

    def spread(self, column: str) -> pd.DataFrame:
        """Means of any column of the rows with status ok, laid out as the scores are."""
        ok = self.rows[self.rows["status"] == "ok"]
        return ok.pivot_table(index=INDEX, columns=["stage", "modality"], values=column, aggfunc="mean")

    @cached_property
    def _table(self) -> pd.DataFrame:
        return self.spread(self.metric)

    @cached_property
    def _bare(self) -> pd.Series:
        return (self.rows["status"] == "ok") & self.rows[self.metric].isna()

    @cached_property
    def _blank(self) -> pd.DataFrame:
        told = self.rows.assign(**{self.metric: self.rows[self.metric].isna().astype(float)})
        return Scores(told, self.metric).spread(self.metric)


def counts(pairs: pd.DataFrame | None) -> dict[str, int]:
    """`n_subjects`, `n_patients` and `n_structures` of what `Scores.paired` gave."""
    levels = ("subject", "patient", "structure")
    if pairs is None:
        return {f"n_{level}s": 0 for level in levels}
    return {f"n_{level}s": int(pairs.index.get_level_values(level).nunique()) for level in levels}


def reasoned(entry: dict[str, Any], *reasons: str | None) -> dict[str, Any]:
    """An entry with the reasons, where there are any."""
    told = "; ".join(filter(None, reasons))
    return {**entry, "reason": told} if told else entry


def nothing(rows: pd.DataFrame, stages: Sequence[str]) -> str:
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
