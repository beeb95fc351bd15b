"""What every way of prompting lets the user choose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PromptOptions:
    """Options shared by all prompts.

    Attributes:
        name: registered name.
    """

    name: str = "auto"
