"""Options of the family."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from umdseg.backbones.options import ModelOptions
from umdseg.errors import UserError, unknown

PROPAGATE = ("box", "point", "mask")
CHANNELS = ("repeat", "neighbours")
# column, row and slice axis of the pictures of each plane, as they are shown to a radiologist
PLANES = {"axial": "LPS", "coronal": "LIP", "sagittal": "PIL"}


@dataclass
class Sam2dOptions(ModelOptions):
    """How a network for single images goes through a volume.

    Attributes:
        propagate: what the mask of one slice becomes as the prompt of the next: its tight `box`, a click at
            its deepest `point`, or `mask`, the box together with the low-resolution logits. SAM 2 and MedSAM2
            follow a mask by their own memory instead, except on training patches.
        channels: `repeat` shows one slice three times; `neighbours` (2.5D) shows a slice between those on
            both sides of it.
        planes: axial, coronal, sagittal; of several, the mean of the logits counts.
        cached_mb: embeddings of slices kept per scan, in megabytes.
    """

    ELSEWHERE: ClassVar[tuple[str, ...]] = (*ModelOptions.ELSEWHERE, "cached_mb")
    # training patches are axial, and prompted one by one
    FREE: ClassVar[tuple[str, ...]] = ("propagate", "planes")

    propagate: str = "box"
    channels: str = "repeat"
    planes: list[str] = field(default_factory=lambda: ["axial"])
    cached_mb: int = 1024

    def validate(self) -> None:
        """Refuse values that are none.

        Raises:
            UserError: with the nearest valid choice.
        """
        for name, value, allowed in (
            ("model.propagate", self.propagate, PROPAGATE),
            ("model.channels", self.channels, CHANNELS),
            *(("model.planes", plane, tuple(PLANES)) for plane in self.planes),
        ):
            if value not in allowed:
                raise unknown(name, value, allowed)
        if not self.planes or len(set(self.planes)) != len(self.planes):
            raise UserError(
                f"{self.planes} are no planes to look at",
                where="model.planes",
                expected="one or more of axial, coronal, sagittal, each once",
            )
        if self.cached_mb < 0:
            raise UserError(
                f"{self.cached_mb} MB cannot be kept", where="model.cached_mb", expected="0 or more"
            )
