"""Protocol, case table and gap statistics."""

from __future__ import annotations

# `gap` is imported at once: as a lazy attribute it would be hidden by its own module of that name
from umdseg.evaluation.cases import COLUMNS, merge, read_cases, write_cases
from umdseg.evaluation.gap import gap
from umdseg.evaluation.options import BASELINES, EvaluationOptions
from umdseg.evaluation.summary import summarise

__all__ = [
    "BASELINES",
    "COLUMNS",
    "EvaluationOptions",
    "gap",
    "merge",
    "read_cases",
    "summarise",
    "write_cases",
]
