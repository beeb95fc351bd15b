"""No fusion: one modality at a time."""

from __future__ import annotations

from typing import ClassVar

from umdseg.fusion.options import FusionOptions


class NoFusion:
    """One modality at a time: nothing wraps the backbone, scans are fitted and scored by themselves.

    Attributes:
        Options: its option dataclass.
    """

    Options: ClassVar[type[FusionOptions]] = FusionOptions
