"""prompt=point: one click per structure, at the same place in every modality of a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umdseg.prompts.options import PromptOptions
from umdseg.vocabulary import Millimetres, Prompt, PromptKind


@dataclass
class PointOptions(PromptOptions):
    """Single clicks have no options of their own."""

    name: str = "point"


class PointPrompts:
    """One positive click per structure."""

    Options = PointOptions
    kind: PromptKind = "point"

    def __init__(self, options: PointOptions | None = None) -> None:
        self.options = options or PointOptions()

    def for_subject(self, structures: Sequence[str], clicks: Mapping[str, Millimetres]) -> list[Prompt]:
        """Prompts for one subject; structures without a click (nothing to click on) get none.

        Args:
            structures: canonical names.
            clicks: structure -> patient millimetres (RAS+), see `umdseg.prompts.clicks.first_click`.
        """
        return [Prompt(name, "point", (clicks[name],), (1,)) for name in structures if name in clicks]
