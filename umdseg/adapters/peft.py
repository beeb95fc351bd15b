"""What all adapters that go through Hugging Face peft share."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from umdseg.adapters.base import Adapter
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError

WEIGHTS = "adapter_model.safetensors"


class PeftAdapter(Adapter):
    """An adapter that is a peft configuration; `backbone.net` becomes peft's wrapper of the network."""

    @abstractmethod
    def config(self, backbone: Backbone, rows: list[int]) -> Any:
        """The peft configuration, `rows` being the class rows to train."""

    def _inject(self, backbone: Backbone, rows: list[int]) -> None:
        from peft import get_peft_model

        try:
            backbone.net = get_peft_model(backbone.net, self.config(backbone, rows))
        # peft says so when a pattern matches nothing, or a layer it cannot wrap
        except ValueError as error:
            raise UserError(
                f"adapter '{self.method}' does not fit model {backbone.card.name}: {error}",
                where="adapter.targets",
                expected=f"a regular expression of module names, such as {backbone.card.adapter_targets}",
            ) from error

    def _disabled(self, backbone: Backbone) -> Any:
        return _wrapper(backbone).disable_adapter()

    def _merge(self, backbone: Backbone) -> None:
        backbone.net = _wrapper(backbone).merge_and_unload()

    def _unload(self, backbone: Backbone) -> None:
        backbone.net = _wrapper(backbone).unload()

    def _write(self, folder: Path, backbone: Backbone) -> None:
        _wrapper(backbone).save_pretrained(str(folder), save_embedding_layers=False)
        # peft's template of a model card, empty; the facts are in umdseg_adapter.json
        (folder / "README.md").unlink(missing_ok=True)

    def read(self, folder: Path, backbone: Backbone) -> None:
        """Load peft's file, refusing anything but exactly this adapter's tensors."""
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        from umdseg.backbones.weights import check_fit, read_state

        state = read_state(folder / WEIGHTS)
        net = _wrapper(backbone)
        own = get_peft_model_state_dict(net, save_embedding_layers=False)
        check_fit(own, state, where=folder / WEIGHTS, what=f"adapter '{self.method}'")
        set_peft_model_state_dict(net, state)


def _wrapper(backbone: Backbone) -> Any:
    return backbone.net


def class_table(backbone: Backbone, rows: list[int]) -> dict[str, list[int]] | None:
    """Peft's `trainable_token_indices` for learned class rows: those rows train, the others cannot."""
    return {backbone.card.class_rows: rows} if rows else None
