"""Whose subjects are: several studies of one person are one patient to every interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from umdseg.errors import UserError
from umdseg.evaluation.bootstrap import Interval, mean_interval, ratio_interval

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

    @property
    def means(self) -> NDArray[np.float64]:
        """(n_patients,) each patient's mean over their subjects, in the order of patients' names."""
        _, place, count = np.unique(self.patients, return_inverse=True, return_counts=True)
        return np.bincount(place, self.values) / count

    def interval(self, n_resamples: int, seed: int) -> Interval:
        """Of the mean over subjects, resampling patients with all their subjects."""
        return mean_interval(self.values, n_resamples, seed, groups=self.patients)

    def share(self, whole: PerSubject, n_resamples: int, seed: int) -> Interval:
        """Of this mean over another one of the same subjects."""
        return ratio_interval(self.values, whole.values, n_resamples, seed, groups=self.patients)

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
