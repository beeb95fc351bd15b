"""prompt=box: one box per structure, at the same place in every modality of a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umdseg.prompts.boxes import Box
from umdseg.prompts.options import PromptOptions
from umdseg.vocabulary import Prompt, PromptKind


@dataclass
class BoxOptions(PromptOptions):
    """Boxes have no options of their own; how loose they are is `evaluation.box_margin_mm` and the like."""

    name: str = "box"


class BoxPrompts:
    """One box per structure.

    Boxes come from the reference label, so the model is told the structure's extent: scores are those of
    perfect (or, with margin and jitter, nearly perfect) box drawing, not comparable with clicks or classes.
    """

    Options = BoxOptions
    kind: PromptKind = "box"

    def __init__(self, options: BoxOptions | None = None) -> None:
        self.options = options or BoxOptions()

    def for_subject(self, structures: Sequence[str], boxes: Mapping[str, Box]) -> list[Prompt]:
        """Prompts for one subject; structures without a box (nothing to draw it around) get none.

        Args:
            structures: canonical names.
            boxes: structure -> lower and upper corner in patient millimetres (RAS+).
        """
        return [Prompt(name, "box", box=boxes[name]) for name in structures if name in boxes]
