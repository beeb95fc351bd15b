"""prompt=scribble: one line through each structure, at the same place in every modality of a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umdseg.prompts.options import PromptOptions
from umdseg.vocabulary import Contour, Prompt, PromptKind


@dataclass
class ScribbleOptions(PromptOptions):
    """Scribbles have no options of their own."""

    name: str = "scribble"


class ScribblePrompts:
    """One scribble per structure, along the middle of its largest axial cross-section.

    Scribbles come from the reference label: all of the line lies in the structure, where it is deepest.
    """

    Options = ScribbleOptions
    kind: PromptKind = "scribble"

    def __init__(self, options: ScribbleOptions | None = None) -> None:
        self.options = options or ScribbleOptions()

    def for_subject(self, structures: Sequence[str], lines: Mapping[str, Contour]) -> list[Prompt]:
        """Prompts for one subject; structures without a scribble (nothing to draw it through) get none.

        Args:
            structures: canonical names.
            lines: structure -> open contour in patient millimetres (RAS+).
        """
        return [Prompt(name, "scribble", contours=(lines[name],)) for name in structures if name in lines]
