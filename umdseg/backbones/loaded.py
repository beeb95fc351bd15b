"""What came of loading weights: the share of the network that a file filled, and what starts at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# modules named where some start at random
SHOWN = 3


@dataclass(frozen=True)
class Loaded:
    """The record of one network's weights.

    Attributes:
        file: name of the file without its folder; of several, how many.
        total: tensors of the network.
        fresh: names of those that the file does not hold, which start at random.
        layout: how the file differed from the network's own state dict, in few words; empty = not at all.
        verified: whether the file's hash is the one that its publisher or the card names.
    """

    file: str
    total: int
    fresh: tuple[str, ...] = ()
    layout: str = ""
    verified: bool = False

    @property
    def pretrained(self) -> int:
        """Tensors that came from the file."""
        return self.total - len(self.fresh)

    def told(self) -> str:
        """One line for people."""
        # rounded down: what is not complete is never "100 %"
        share = f"{100 * self.pretrained // max(self.total, 1)} %"
        count = f"{self.pretrained} of {self.total} tensors"
        if self.fresh:
            parts = list(dict.fromkeys(name.partition(".")[0] for name in self.fresh))
            named = ", ".join(parts[:SHOWN]) + (", ..." if len(parts) > SHOWN else "")
            count += f" pretrained ({share}); {len(self.fresh)} start at random ({named})"
        else:
            count += f" ({share})"
        layout = f", {self.layout}" if self.layout else ""
        return f"{self.file}, {count}{layout}, sha256 {'verified' if self.verified else 'not verified'}"

    def record(self) -> dict[str, Any]:
        """Plain data for provenance.json."""
        return {
            "file": self.file,
            "tensors": self.total,
            "pretrained": self.pretrained,
            "random_tensors": list(self.fresh),
            "layout": self.layout or "the network's own",
            "sha256_verified": self.verified,
        }


def named(files: Sequence[str]) -> str:
    """The name of one file, or how many there are."""
    return files[0] if len(files) == 1 else f"{len(files)} checkpoints"
