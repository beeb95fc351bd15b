"""Whose subjects are: several studies, or phantom copies, of one patient are resampled together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from umdseg.data.phantom.labelmap import person
from umdseg.evaluation.people import PerSubject

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


def per_subject(values: pd.Series, patients: Patients) -> PerSubject:
    """Means over structures of values indexed by (subject, structure).

    Who is not in `patients` is a patient of their own.
    """
    import pandas as pd

    subjects = values.groupby(level="subject").mean()
    owners = [patients.get(str(name), str(name)) for name in subjects.index]
    index = pd.MultiIndex.from_arrays([owners, subjects.index], names=["patient", "subject"])
    return PerSubject.of(subjects.set_axis(index))


def counted(pairs: pd.DataFrame | pd.Series, patients: Patients) -> dict[str, Any]:
    """How many patients, subjects and structures an index of (subject, structure) holds."""
    subjects = [str(subject) for subject in pairs.index.get_level_values("subject").unique()]
    return {
        "n_patients": len({patients.get(subject, subject) for subject in subjects}),
        "n_subjects": len(subjects),
        "n_structures": int(pairs.index.get_level_values("structure").nunique()),
    }
