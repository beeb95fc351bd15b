"""Options every model takes, and those of families that take little more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ModelOptions:
    """Which model, with which weights.

    Attributes:
        name: registered name.
        weights: None = the card's source (shipped with the package, or downloaded), `random`, or a file.
        accept_licence: the user has read and accepts the terms of weights that are downloaded.
        window: (X, Y, Z) voxels, along the model's own axes, of a training patch and of a test window alike;
            None = the card's. For small scans: what a window holds beyond the scan is computed for nothing.
    """

    name: str = "vista3d_tiny"
    weights: str | None = None
    accept_licence: bool = False
    window: tuple[int, int, int] | None = None


@dataclass
class Vista3dOptions(ModelOptions):
    """Options of `vista3d`.

    Attributes:
        bundle_parity: mark clicks as "special" on the classes the authors' bundle does it on (an obsolete
            list), to repeat its answers; False = on those the network was trained with.
    """

    bundle_parity: bool = False
