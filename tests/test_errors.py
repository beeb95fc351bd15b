from __future__ import annotations

import pytest

from umdseg.errors import UserError, nearest, unknown


def test_a_user_error_says_what_where_expected_and_nearest():
    text = str(UserError("no such organ", where="data.yaml", expected="an organ", nearest="liver"))
    lines = text.splitlines()
    assert lines[0] == "no such organ"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["where", "expected", "did you mean"]
    assert all(word in text for word in ("data.yaml", "an organ", "liver"))


def test_what_is_not_known_is_not_printed():
    assert str(UserError("it broke")) == "it broke"


def test_a_user_error_is_a_value_error():
    with pytest.raises(ValueError, match="broke"):
        raise UserError("it broke")


@pytest.mark.parametrize(
    ("name", "expected"), [("lvier", "liver"), ("SPLEEN", "spleen"), ("zzzz", None), ("", None)]
)
def test_nearest(name, expected):
    assert nearest(name, ["liver", "spleen", "kidney_left"]) == expected


def test_nearest_takes_any_iterable_and_any_value():
    assert nearest(3, (str(i) for i in range(4))) == "3"


def test_unknown_lists_the_choices_sorted_and_cuts_long_lists():
    short = unknown("model", "vist", ["vista3d", "sam"], where="model.name")
    assert "one of sam, vista3d" in str(short)
    assert (short.nearest, short.where) == ("vista3d", "model.name")
    long = str(unknown("class", "x", [f"c{i:03}" for i in range(100)]))
    assert "c039" in long
    assert "c040" not in long
    assert "100 in all" in long
