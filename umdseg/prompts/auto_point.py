"""prompt=auto_point: by class, corrected by one click per structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umdseg.prompts.options import PromptOptions
from umdseg.vocabulary import Millimetres, Prompt, PromptKind


@dataclass
class AutoPointOptions(PromptOptions):
    """Class and click together have no options of their own."""

    name: str = "auto_point"


class AutoPointPrompts:
    """The class and one positive click per structure."""

    Options = AutoPointOptions
    kind: PromptKind = "auto_point"

    def __init__(self, options: AutoPointOptions | None = None) -> None:
        self.options = options or AutoPointOptions()

    def for_subject(self, structures: Sequence[str], clicks: Mapping[str, Millimetres]) -> list[Prompt]:
        """Prompts for one subject; structures without a click (nothing to click on) get none.

        Args:
            structures: canonical names.
            clicks: structure -> patient millimetres (RAS+), see `umdseg.prompts.clicks.first_click`.
        """
        return [Prompt(name, "auto_point", (clicks[name],), (1,)) for name in structures if name in clicks]
