"""No fusion: one modality at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass
class FusionOptions:
    """Options every fusion takes.

    Attributes:
        name: registered name.
    """

    name: str = "none"


class NoFusion:
    """One modality at a time: nothing wraps the backbone, scans are fitted and scored by themselves.

    Attributes:
        Options: its option dataclass.
    """

    Options: ClassVar[type[FusionOptions]] = FusionOptions
