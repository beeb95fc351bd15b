"""Options every model takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ModelOptions:
    """Which model, with which weights.

    Attributes:
        name: registered name.
        weights: None = the card's source (shipped with the package, or downloaded), `random`, or a file.
        accept_licence: the user has read and accepts the terms of weights that are downloaded.
    """

    name: str = "vista3d_tiny"
    weights: str | None = None
    accept_licence: bool = False
