"""What a check found: pass, warn with a reason, or refuse with what was expected."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from umdseg.errors import UserError

Level = Literal["pass", "warn", "refuse"]
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class Finding:
    """One thing a check has to say.

    Attributes:
        level: warn or refuse (pass for a thing worth telling that is right).
        what: one sentence.
        where: file and subject, or config path.
        expected: what would have been right.
        nearest: the nearest valid choice.
    """

    level: Level
    what: str
    where: str = ""
    expected: str = ""
    nearest: str | None = None

    @classmethod
    def of(cls, error: UserError, level: Level = "refuse") -> Finding:
        """A user error as a finding."""
        return cls(level, error.what, str(error.where or ""), error.expected or "", error.nearest)

    def error(self) -> UserError:
        """The finding as an error to raise."""
        expected = self.expected or None
        return UserError(self.what, where=self.where or None, expected=expected, nearest=self.nearest)


def worst(findings: Iterable[Finding]) -> Level:
    """The most serious level; pass when there is nothing to say."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="pass")
