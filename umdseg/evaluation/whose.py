"""Whose subjects are: several studies, or phantom copies, of one patient are resampled together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.phantom.labelmap import person
from umdseg.evaluation.bootstrap import Interval, mean_interval, ratio_interval

if TYPE_CHECKING:
    import pandas as pd

Patients = Mapping[str, str]
_COPY = re.compile(r"_copy\d+$")
# of these the names of subjects tell the patient: copies of one label map, studies of one person
_NAMED = ("phantom", "autopet")


def whose(cases: pd.DataFrame) -> dict[str, str]:
    """Subject -> patient, of those that are not patients of their own.

    As the column `patient` says; where it is missing or only repeats the subject (older tables), as far as
    names tell: phantoms on label maps are called `<map>` and `<map>_copy1`, maps and studies of autoPET
    `<tracer>_<patient>_<study>`.
    """
    found: dict[str, str] = {}
    names = [name for name in ("subject", "patient", "dataset") if name in cases]
    for row in cases[names].drop_duplicates().astype(str).to_dict("records"):
        subject, patient = row["subject"], row.get("patient", "")
        if patient in ("", subject) and row.get("dataset") in _NAMED:
            patient = person(_COPY.sub("", subject))
        if patient not in ("", subject):
            found[subject] = patient
    return found


@dataclass(frozen=True)
class PerPatient:
    """Subjects' values, summed per patient; a subject's value is the mean over its structures.

    Attributes:
        sums: (n_patients,), in the order of patients' names.
        counts: (n_patients,) subjects of each.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]

    @classmethod
    def of(cls, values: pd.Series, patients: Patients) -> PerPatient:
        """From values indexed by (subject, structure); who is not in `patients` is a patient of their own."""
        subjects = values.groupby(level="subject").mean()
        owners = [patients.get(str(subject), str(subject)) for subject in subjects.index]
        grouped = subjects.groupby(np.asarray(owners, dtype=object))
        return cls(*(np.asarray(part.sort_index(), dtype=float) for part in (grouped.sum(), grouped.count())))

    @property
    def mean(self) -> float:
        """The mean over subjects."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def means(self) -> NDArray[np.float64]:
        """(n_patients,) each patient's mean over their subjects."""
        return self.sums / self.counts

    def interval(self, n_resamples: int, seed: int) -> Interval:
        """Of the mean over subjects, resampling patients with all their subjects.

        The cluster bootstrap (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8).
        """
        if np.ptp(self.counts) == 0:
            return mean_interval(self.means, n_resamples, seed)
        return ratio_interval(self.sums, self.counts, n_resamples, seed)

    def share(self, whole: PerPatient, n_resamples: int, seed: int) -> Interval:
        """Interval of this mean over another one of the same subjects."""
        return ratio_interval(self.sums, whole.sums, n_resamples, seed)


def counted(pairs: pd.DataFrame | pd.Series, patients: Patients) -> dict[str, Any]:
    """How many patients, subjects and structures an index of (subject, structure) holds."""
    subjects = [str(subject) for subject in pairs.index.get_level_values("subject").unique()]
    return {
        "n_patients": len({patients.get(subject, subject) for subject in subjects}),
        "n_subjects": len(subjects),
        "n_structures": int(pairs.index.get_level_values("structure").nunique()),
    }
