"""Options of `torch_module`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from umdseg.backbones.options import ModelOptions
from umdseg.errors import UserError


@dataclass
class TorchModuleOptions(ModelOptions):
    """Which module, made how, described where.

    Attributes:
        module: `package.module:Class` or `path/to/file.py:Class`; what it returns when called is the network.
        arguments: its keyword arguments.
        card: YAML file with the fields of `umdseg.backbones.card.Card` (see `card_file`).
    """

    ELSEWHERE: ClassVar[tuple[str, ...]] = (*ModelOptions.ELSEWHERE, "module", "card")

    name: str = "torch_module"
    module: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    card: str | None = None

    def binding(self) -> dict[str, Any]:
        """As usual, with the class without the place it lies in: two of them can share their weights."""
        return {**super().binding(), "module": (self.module or "").rpartition(":")[2]}

    def validate(self) -> None:
        """Refuse what names no module or card.

        Raises:
            UserError: one of them is missing or has no `:`.
        """
        if not self.module or not all(self.module.rpartition(":")):
            raise UserError(
                "no torch module is named" if not self.module else f"'{self.module}' names no class",
                where="model.module",
                expected="package.module:Class or path/to/file.py:Class",
            )
        if not self.card:
            raise UserError("no card is named", where="model.card", expected="a YAML file, such as card.yaml")
