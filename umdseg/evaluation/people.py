"""Whose subjects are: several studies of one person are one patient to every interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from umdseg.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PerSubject:
    """One value per subject.

    Attributes:
        values: (n_subjects,), ordered by patient, then subject.
        patients: (n_subjects,) whose each is.
    """

    values: NDArray[np.float64]
    patients: NDArray[Any]

    @classmethod
    def of(cls, values: pd.Series) -> PerSubject:
        """Means over what else the index says (structures) of values indexed by patient and subject."""
        means = values.groupby(level=["patient", "subject"]).mean().sort_index()
        return cls(means.to_numpy(dtype=float), means.index.get_level_values("patient").to_numpy())

    @property
    def mean(self) -> float:
        """The mean over subjects."""
        return float(self.values.mean())

    def counts(self) -> dict[str, int]:
        """`n_subjects` and `n_patients`."""
        return {"n_subjects": len(self.values), "n_patients": len(set(self.patients.tolist()))}


def with_patients(cases: pd.DataFrame) -> pd.DataFrame:
    """The rows with a `patient` in each, and subjects that are told apart across datasets.

    A row without a patient (an older table) takes the one that other rows of the subject name, else the
    subject itself. Of several datasets, subjects and patients are called `dataset/subject`: one id in two of
    them is not one person.

    Raises:
        UserError: the rows of one subject name two patients.
    """
    subject = cases["subject"].astype(str)
    patient = cases["patient"].fillna("").astype(str) if "patient" in cases else subject.map(lambda _: "")
    if "dataset" in cases and cases["dataset"].fillna("").nunique() > 1:
        place = cases["dataset"].fillna("").astype(str) + "/"
        subject, patient = place + subject, patient.where(patient == "", place + patient)
    told: dict[str, str] = {}
    for name, person in sorted(set(zip(subject, patient, strict=True))):
        if person not in ("", name) and told.setdefault(name, person) != person:
            what = f"the case table gives subject {name} two patients: {told[name]}, {person}"
            raise UserError(what, where="column patient", expected="one patient per subject")
    return cases.assign(subject=subject, patient=subject.map(lambda name: told.get(name, name)))
