"""Full fine-tuning: every weight trains, every class row included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import torch

from umdseg.adapters.base import Adapter, AdapterOptions
from umdseg.adapters.layers import compiled
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError

WEIGHTS = "model.safetensors"


@dataclass
class FullOptions(AdapterOptions):
    """Options of full tuning.

    Attributes:
        targets: train only parameters whose name starts with a match of this regular expression; None = all.
    """

    name: str = "full"
    targets: str | None = None


class FullTuning(Adapter):
    """The whole network trains; a copy of the base is kept (same size again, on the CPU) to go back to.

    Unlike with other adapters the rows of the class table are all free to move: weight decay and
    optimiser state touch rows of structures that are not asked for.

    Batch norm whose scale or shift trains follows the data, too: statistics of the old weights do not fit the
    new ones, and a network from scratch has none yet. They are kept, averaged and put back with the weights.
    Models whose wrapper holds them still (MONAI's published networks) keep those of their weights file.
    """

    method = "full"
    # weights that already work are moved more gently than fresh low-rank ones
    default_lr = 2e-4
    Options: ClassVar[type[AdapterOptions]] = FullOptions

    def _inject(self, backbone: Backbone, rows: list[int]) -> None:
        if self.routes:
            raise UserError(
                "full tuning keeps one model, not one per modality",
                where="adapter.per",
                expected="null, or adapter=lora",
            )
        targets = cast(FullOptions, self.options).targets
        chosen = compiled(targets or "", "adapter.targets")
        trained = {name for name, _ in backbone.net.named_parameters() if chosen.match(name)}
        if not trained:
            raise UserError(
                f"no parameter of {backbone.card.name} starts with '{targets}'",
                where="adapter.targets",
                expected="a regular expression of parameter names, or null for all",
            )
        self._base = _copy(backbone)
        for name, parameter in backbone.net.named_parameters():
            parameter.requires_grad_(name in trained)

    @contextmanager
    def _disabled(self, backbone: Backbone) -> Iterator[None]:
        tuned = _copy(backbone)
        backbone.net.load_state_dict(self._base)
        try:
            yield
        finally:
            backbone.net.load_state_dict(tuned)

    def _merge(self, backbone: Backbone, route: str | None = None) -> None:
        self._base = {}

    def _unload(self, backbone: Backbone) -> None:
        backbone.net.load_state_dict(self._base)
        backbone.requires_grad_(False)

    def _write(self, folder: Path, backbone: Backbone) -> None:
        from safetensors.torch import save_file

        save_file(_copy(backbone), folder / WEIGHTS, metadata={"format": "pt"})

    def read(self, folder: Path, backbone: Backbone) -> None:
        """Load the full state, strictly."""
        from umdseg.backbones.weights import load_strict, read_state

        load_strict(backbone.net, read_state(folder / WEIGHTS), where=folder / WEIGHTS)


def _copy(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {key: value.detach().to("cpu", copy=True) for key, value in backbone.net.state_dict().items()}
