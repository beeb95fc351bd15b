"""Protocol, case table and gap statistics."""

from __future__ import annotations

# `gap` is imported at once: as a lazy attribute it would be hidden by its own module of that name
from umdseg.evaluation.cases import COLUMNS, merge, read_cases, write_cases
from umdseg.evaluation.gap import gap
from umdseg.evaluation.options import BASELINES, EvaluationOptions
from umdseg.evaluation.paired import paired_difference
from umdseg.evaluation.summary import summarise
from umdseg.evaluation.won_back import won_back

__all__ = [
    "BASELINES",
    "COLUMNS",
    "EvaluationOptions",
    "gap",
    "merge",
    "paired_difference",
    "read_cases",
    "summarise",
    "won_back",
    "write_cases",
]
