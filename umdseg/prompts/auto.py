"""prompt=auto: structures are asked for by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umdseg.prompts.options import PromptOptions
from umdseg.vocabulary import Millimetres, Prompt, PromptKind


@dataclass
class AutoOptions(PromptOptions):
    """Class prompts have no options of their own."""

    name: str = "auto"


class AutoPrompts:
    """One class prompt per structure."""

    Options = AutoOptions
    kind: PromptKind = "auto"

    def __init__(self, options: AutoOptions | None = None) -> None:
        self.options = options or AutoOptions()

    def for_subject(self, structures: Sequence[str], clicks: Mapping[str, Millimetres]) -> list[Prompt]:
        """Prompts for one subject, the same in every modality; clicks are not needed."""
        del clicks
        return [Prompt(name, "auto") for name in structures]
