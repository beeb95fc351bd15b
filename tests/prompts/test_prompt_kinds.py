"""Class and point prompts for one subject."""

from __future__ import annotations

import pytest

from umdseg.prompts.auto import AutoPrompts
from umdseg.prompts.auto_point import AutoPointPrompts
from umdseg.prompts.point import PointPrompts
from umdseg.prompts.text import TextPrompts
from umdseg.registry import names, resolve
from umdseg.vocabulary import Contour, Prompt

CLICKS = {"liver": (1.0, -2.0, 3.5)}


def test_auto_asks_for_every_structure_by_class() -> None:
    prompts = AutoPrompts().for_subject(["liver", "spleen"], CLICKS)
    assert [(p.structure, p.kind, p.points) for p in prompts] == [
        ("liver", "auto", ()),
        ("spleen", "auto", ()),
    ]


def test_point_asks_where_there_is_something_to_click() -> None:
    (prompt,) = PointPrompts().for_subject(["spleen", "liver"], CLICKS)
    assert (prompt.structure, prompt.kind) == ("liver", "point")
    assert prompt.points == (CLICKS["liver"],)
    assert prompt.signs == (1,)


def test_class_and_click_together_ask_where_there_is_something_to_click() -> None:
    (prompt,) = AutoPointPrompts().for_subject(["spleen", "liver"], CLICKS)
    assert prompt == Prompt("liver", "auto_point", (CLICKS["liver"],), (1,))


def test_text_asks_for_every_structure_in_words() -> None:
    prompts = TextPrompts().for_subject(["kidney_left", "liver"], CLICKS)
    assert prompts == [
        Prompt("kidney_left", "text", text="kidney left"),
        Prompt("liver", "text", text="liver"),
    ]


@pytest.mark.parametrize("name", ["lasso", "scribble"])
def test_contours_are_asked_with_where_one_was_drawn(name: str) -> None:
    line = Contour(((0.0, 0.0, 5.0), (9.0, 0.0, 5.0), (9.0, 9.0, 5.0)), closed=name == "lasso")
    prompts = resolve("prompt", name)().for_subject(["spleen", "liver"], {"liver": line})
    assert prompts == [Prompt("liver", name, contours=(line,))]
    assert prompts[0].contours[0].kind == name


@pytest.mark.parametrize("name", ["auto", "point", "auto_point", "text", "lasso", "scribble"])
def test_registered_prompts_say_their_kind(name: str) -> None:
    assert name in names("prompt")
    factory = resolve("prompt", name)
    assert factory(factory.Options()).kind == name
    assert factory.Options().name == name
