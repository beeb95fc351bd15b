"""No fusion: one modality at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from umdseg.backbones.base import Backbone, Features
from umdseg.errors import UserError


@dataclass
class FusionOptions:
    """Options every fusion takes.

    Attributes:
        name: registered name.
    """

    name: str = "none"


class NoFusion:
    """Passes the only modality given through to the backbone.

    Attributes:
        Options: its option dataclass.
    """

    Options: ClassVar[type[FusionOptions]] = FusionOptions

    def __init__(self, options: FusionOptions) -> None:
        self.options = options

    def encode(
        self, backbone: Backbone, images: Mapping[str, torch.Tensor], affine: torch.Tensor | None = None
    ) -> Features:
        """Encode {modality: (B, 1, X, Y, Z)}.

        Raises:
            UserError: several modalities at once.
        """
        if len(images) != 1:
            raise UserError(f"fusion 'none' takes one modality at a time, not {', '.join(images)}")
        return backbone.encode(next(iter(images.values())), affine)
