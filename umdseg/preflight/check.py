"""One line of the table: what was looked at, the numbers seen, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass

from umdseg.data.verdict import Finding, Level, worst


@dataclass(frozen=True)
class Check:
    """One subject of inspection.

    Attributes:
        name: what was looked at.
        numbers: what was seen, in few words.
        findings: what is wrong with it.
    """

    name: str
    numbers: str
    findings: tuple[Finding, ...] = ()

    @property
    def level(self) -> Level:
        """pass, warn or refuse."""
        return worst(self.findings)


def count(number: int, noun: str) -> str:
    """A number with its noun, singular or plural."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"
