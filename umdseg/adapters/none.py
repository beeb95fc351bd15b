"""No adapter: nothing trains, except the class rows of structures the model does not know."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

from umdseg.adapters.base import AdapterOptions, RoutedOptions
from umdseg.adapters.layers import Layer
from umdseg.adapters.peft import PeftAdapter
from umdseg.backbones.base import Backbone


class NoAdapter(PeftAdapter):
    """The frozen base; with new structures, one trained class row each (peft trainable tokens)."""

    method = "none"
    needs: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[AdapterOptions]] = RoutedOptions

    def targets(self, backbone: Backbone) -> list[Layer]:
        """None."""
        return []

    def config(self, backbone: Backbone, rows: list[int], targets: list[Layer], pattern: str) -> Any:
        """A `peft.TrainableTokensConfig`."""
        del targets, pattern
        from peft import TrainableTokensConfig

        return TrainableTokensConfig(target_modules=[backbone.card.class_rows], token_indices=rows)

    def _inject(self, backbone: Backbone, rows: list[int]) -> None:
        self._trains = bool(rows)
        backbone.requires_grad_(False)
        if rows:
            super()._inject(backbone, rows)

    def _disabled(self, backbone: Backbone) -> Any:
        return super()._disabled(backbone) if self._trains else nullcontext()

    def _merge(self, backbone: Backbone, route: str | None = None) -> None:
        if self._trains:
            super()._merge(backbone, route)

    def _select(self, backbone: Backbone, route: str | None) -> None:
        if self._trains:
            super()._select(backbone, route)

    def _unload(self, backbone: Backbone) -> None:
        if self._trains:
            super()._unload(backbone)

    def _write(self, folder: Path, backbone: Backbone) -> None:
        if self._trains:
            super()._write(folder, backbone)

    def read(self, folder: Path, backbone: Backbone) -> None:
        """Load the class rows, if there are any."""
        if self._trains:
            super().read(folder, backbone)
