"""Who is one patient, by the table or by name, and means per patient."""

from __future__ import annotations

import pandas as pd
import pytest

from umdseg.evaluation.whose import counted, per_subject, whose


def test_names_of_copies_and_studies_tell_the_patient() -> None:
    names = {
        "phantom": [
            "fdg_ab12_01",
            "fdg_ab12_01_copy1",
            "psma_ab12_01",
            "liver7",
            "liver7_copy12",
            "phantom_test_000",
        ],
        "autopet": ["FDG_cd_2"],
        "petct": ["fdg_x_1", "fdg_x_2", "p_copy1"],
    }
    cases = pd.DataFrame([{"dataset": d, "subject": s} for d, own in names.items() for s in own])
    assert whose(cases) == {
        "fdg_ab12_01": "fdg_ab12",
        "fdg_ab12_01_copy1": "fdg_ab12",
        "psma_ab12_01": "psma_ab12",
        "liver7_copy12": "liver7",
        "FDG_cd_2": "fdg_cd",
    }


def test_the_table_knows_better_than_names() -> None:
    rows = [("petct", "a1", "a"), ("petct", "b", "b"), ("petct", "c", ""), ("phantom", "m_copy1", "x")]
    cases = pd.DataFrame(rows, columns=["dataset", "subject", "patient"])
    assert whose(cases) == {"a1": "a", "m_copy1": "x"}
    # an older table repeats the subject where nothing was told
    assert whose(pd.DataFrame([("phantom", "m_copy1", "m_copy1")], columns=cases.columns)) == {"m_copy1": "m"}


def test_subjects_are_means_of_structures_and_patients_of_subjects() -> None:
    index = pd.MultiIndex.from_tuples(
        [("a1", "liver"), ("a1", "spleen"), ("a2", "liver"), ("b", "liver")], names=["subject", "structure"]
    )
    values, known = pd.Series([0.2, 0.4, 0.9, 0.5], index=index), {"a1": "a", "a2": "a"}
    found = per_subject(values, known)
    assert found.values == pytest.approx([0.3, 0.9, 0.5])
    assert list(found.patients) == ["a", "a", "b"]
    assert found.mean == pytest.approx((0.3 + 0.9 + 0.5) / 3)
    assert found.means == pytest.approx([0.6, 0.5])
    assert per_subject(values, {}).means == pytest.approx([0.3, 0.9, 0.5])
    assert counted(values, known) == {"n_patients": 2, "n_subjects": 3, "n_structures": 2}
