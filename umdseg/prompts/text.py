"""prompt=text: structures are asked for in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umdseg.prompts.options import PromptOptions
from umdseg.vocabulary import Prompt, PromptKind


@dataclass
class TextOptions(PromptOptions):
    """Prompts in words have no options of their own."""

    name: str = "text"


class TextPrompts:
    """Each structure's name in words: "kidney left" for `kidney_left`."""

    Options = TextOptions
    kind: PromptKind = "text"

    def __init__(self, options: TextOptions | None = None) -> None:
        self.options = options or TextOptions()

    def for_subject(self, structures: Sequence[str], clicks: Mapping[str, object]) -> list[Prompt]:
        """Prompts for one subject, the same in every modality; clicks are not needed."""
        del clicks
        return [Prompt(name, "text", text=name.replace("_", " ")) for name in structures]
