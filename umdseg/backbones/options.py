"""Options every model takes, and those of families that take little more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass
class ModelOptions:
    """Which model, with which weights.

    Attributes:
        name: registered name.
        weights: None = the card's source (shipped with the package, or downloaded), `random`, or a file.
        accept_licence: the user has read and accepts the terms of weights that are downloaded.
        window: (X, Y, Z) voxels, along the model's own axes, of a training patch and of a test window alike;
            None = the card's. For small scans: what a window holds beyond the scan is computed for nothing.

    Class attributes:
        ELSEWHERE: options kept in no record (see `umdseg.backbones.record`): where files lie, what costs
            memory only, and what is recorded by other means (weights by their hash, the window by the card).
        FREE: options that an adapter may be used with at other values than in training, because they concern
            inference alone or because the card tells what they do. All others must be the same.
    """

    ELSEWHERE: ClassVar[tuple[str, ...]] = ("weights", "accept_licence", "window")
    FREE: ClassVar[tuple[str, ...]] = ()

    name: str = "vista3d_tiny"
    weights: str | None = None
    accept_licence: bool = False
    window: tuple[int, int, int] | None = None

    def binding(self) -> dict[str, Any]:
        """Options that change the input or the network, by name."""
        return self._of(lambda name: name not in ("name", *self.FREE))

    def defaults(self) -> dict[str, Any]:
        """The model's registered name, and options that are taken up again unless others are asked for."""
        return self._of(lambda name: name in ("name", *self.FREE))

    def _of(self, wanted: Callable[[str], bool]) -> dict[str, Any]:
        own = [spec.name for spec in fields(self) if spec.name not in self.ELSEWHERE]
        return {name: getattr(self, name) for name in own if wanted(name)}


@dataclass
class Vista3dOptions(ModelOptions):
    """Options of `vista3d`.

    Attributes:
        bundle_parity: mark clicks as "special" on the classes the authors' bundle does it on (an obsolete
            list), to repeat its answers; False = on those the network was trained with.
    """

    bundle_parity: bool = False
