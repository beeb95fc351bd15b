"""Prompt tuning: only the vectors that say what is asked for train, of classes, clicks and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from umdseg.adapters.base import AdapterOptions, RoutedOptions
from umdseg.adapters.chosen import ChosenAdapter
from umdseg.adapters.layers import compiled
from umdseg.adapters.own import Piece
from umdseg.adapters.rows import Rows
from umdseg.backbones.base import Backbone


@dataclass
class PromptOptions(RoutedOptions):
    """Options of prompt tuning.

    Attributes:
        structures: whose class vectors train; None = all that the model has. The vectors of those that are
            not asked for in training do not move either way.
    """

    name: str = "prompt"
    structures: list[str] | None = None


class PromptTuning(ChosenAdapter):
    """Class rows of structures and the embeddings of clicks and boxes train; the image path is frozen."""

    method = "prompt"
    needs: ClassVar[tuple[str, ...]] = ("logits", "prompts")
    # a few vectors, each with the gradient of all voxels
    default_lr = 5e-3
    Options: ClassVar[type[AdapterOptions]] = PromptOptions

    def chosen(self, backbone: Backbone) -> Sequence[str]:
        """Embeddings that the card names, the class table apart."""
        pattern = compiled(backbone.card.prompt_parameters, f"card of {backbone.card.name}")
        names = [name for name, _ in backbone.net.named_parameters() if pattern.fullmatch(name)]
        return [name for name in names if name != self._table(backbone)]

    def pieces(self, backbone: Backbone, count: int) -> Mapping[str, Piece]:
        """The class rows as rows, everything else whole.

        Raises:
            UserError: the model has no vectors of the kind, or not one of the structures.
        """
        if not backbone.card.prompt_parameters:
            what = "embeddings of classes, clicks or boxes"
            raise self.nothing(backbone, what, "adapter=head for models of fixed classes, or another method")
        found = dict(super().pieces(backbone, count))
        table, rows = self._table(backbone), self._rows(backbone)
        if rows and compiled(backbone.card.prompt_parameters, "card").fullmatch(table):
            module = backbone.net.get_submodule(backbone.card.class_rows)
            found[table] = Rows(module, rows, count, added=True)
        return found

    def _rows(self, backbone: Backbone) -> list[int]:
        card, asked = backbone.card, cast(PromptOptions, self.options).structures
        # learned structures have rows of their own already
        names = card.structures if asked is None else [n for n in asked if n not in backbone.new_structures]
        return sorted({card.index(member) for name in names for member in card.members(name)})

    def _table(self, backbone: Backbone) -> str:
        return f"{backbone.card.class_rows}.weight"
