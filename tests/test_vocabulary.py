from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from umdseg import vocabulary
from umdseg.vocabulary import Prompt, Scan, Subject


def _subject(*modalities):
    scans = {m: Scan(Path(f"{m}.nii.gz"), m, vocabulary.UNITS[m]) for m in modalities}
    return Subject("p01", scans)


def test_spellings_are_those_of_the_design():
    assert vocabulary.MODALITIES == ("ct", "pet", "mr")
    assert vocabulary.STAGES == ("zero_shot", "adapted", "supervised")
    assert set(vocabulary.PROMPT_KINDS) == {
        "auto", "point", "clicks", "box", "text", "auto_point", "lasso", "scribble",
    }  # fmt: skip
    assert set(vocabulary.STATUSES) == {
        "ok", "empty_reference", "not_annotated", "modality_absent", "class_unknown", "prompt_unsupported",
        "failed",
    }  # fmt: skip
    assert vocabulary.UNITS == {"ct": "HU", "pet": "SUV", "mr": "a.u."}


@pytest.mark.parametrize(
    ("present", "reference"),
    [(("ct", "pet", "mr"), "ct"), (("pet", "mr"), "mr"), (("pet", "ct"), "ct"), (("pet",), "pet")],
)
def test_the_reference_is_ct_if_present_else_mr(present, reference):
    assert _subject(*present).reference() == reference


def test_labels_tell_about_all_structures_unless_they_say_which():
    assert _subject("ct").tells("liver")
    partly = replace(_subject("ct"), annotated=("liver",))
    assert (partly.tells("liver"), partly.tells("spleen")) == (True, False)


def test_a_prompt_needs_one_sign_per_point():
    click = Prompt("liver", "point", points=((1.0, 2.0, 3.0),), signs=(1,))
    assert click.points[0] == (1.0, 2.0, 3.0)
    with pytest.raises(ValueError, match=r"liver.*1 points but 2 signs"):
        Prompt("liver", "point", points=((1.0, 2.0, 3.0),), signs=(1, 0))


def test_the_nouns_cannot_be_changed_behind_someones_back():
    with pytest.raises(AttributeError):
        Prompt("liver").structure = "spleen"
    with pytest.raises(AttributeError):
        _subject("ct").split = "train"
