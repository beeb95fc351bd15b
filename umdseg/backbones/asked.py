"""What a session has been asked, call by call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from umdseg.vocabulary import Prompt

Answer = TypeVar("Answer")


class Asked:
    """The prompts of a session, one per structure, and how they came about."""

    def __init__(self) -> None:
        self._history: list[dict[str, Prompt]] = [{}]

    def add(self, prompts: Sequence[Prompt]) -> None:
        """One call; a prompt replaces the earlier one of the same structure."""
        self._history.append({**self._history[-1], **{prompt.structure: prompt for prompt in prompts}})

    def undo(self) -> None:
        """Take the last call back; without one nothing happens."""
        if len(self._history) > 1:
            self._history.pop()

    def of(self, structures: Sequence[str]) -> list[Prompt]:
        """The prompt of each structure; those without one are asked for by class."""
        return [self._history[-1].get(name, Prompt(name)) for name in structures]

    def kept(self, found: Mapping[Prompt, Answer]) -> dict[Prompt, Answer]:
        """The answers to prompts that still hold; older ones would only cost memory."""
        current = set(self._history[-1].values())
        return {prompt: answer for prompt, answer in found.items() if prompt in current}
