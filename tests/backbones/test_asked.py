"""What a session has been asked, and what every model refuses alike."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from umdseg.backbones.asked import Asked
from umdseg.backbones.guards import check_prompts
from umdseg.errors import UserError
from umdseg.vocabulary import Contour, Prompt

LIVER, SPLEEN = Prompt("liver", "point", ((1.0, 2.0, 3.0),), (1,)), Prompt("spleen", "text", text="spleen")
CORRECTED = Prompt("liver", "clicks", ((1.0, 2.0, 3.0), (9.0, 2.0, 3.0)), (1, 0))


def test_a_later_prompt_replaces_the_one_of_its_structure_until_it_is_taken_back() -> None:
    asked = Asked()
    asked.add([LIVER, SPLEEN])
    asked.add([CORRECTED])
    assert asked.of(["spleen", "aorta", "liver"]) == [SPLEEN, Prompt("aorta", "auto"), CORRECTED]
    assert asked.kept({LIVER: 1, CORRECTED: 2, SPLEEN: 3}) == {CORRECTED: 2, SPLEEN: 3}
    asked.undo()
    assert asked.of(["liver", "spleen"]) == [LIVER, SPLEEN]
    for _ in range(3):
        asked.undo()
    assert asked.of(["liver"]) == [Prompt("liver")]
    assert asked.kept({LIVER: 1}) == {}


LASSO = Contour(((0.0, 0.0, 0.0), (9.0, 0.0, 0.0), (9.0, 9.0, 0.0)))
LINE = Contour(LASSO.points, closed=False)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("liver", "text"), r"model m takes no 'text' prompts.*one of box, lasso"),
        (Prompt("liver", "box"), "box prompt of liver has no box"),
        (Prompt("liver", "lasso"), "lasso prompt of liver has no lasso"),
        (Prompt("liver", "lasso", contours=(LINE,)), "lasso prompt of liver has no lasso"),
        (Prompt("liver", "lasso", contours=(LASSO, LINE)), "takes no scribble"),
        (Prompt("liver", "lasso", contours=(Contour(LASSO.points[:2]),)), "2 points"),
    ],
)
def test_prompts_a_model_cannot_take_are_refused(prompt: Prompt, message: str) -> None:
    card = SimpleNamespace(name="m", prompts=("box", "lasso"))
    check_prompts(card, [Prompt("liver", "lasso", contours=(LASSO, LASSO))])
    with pytest.raises(UserError, match="(?s)" + message):
        check_prompts(card, [prompt])
