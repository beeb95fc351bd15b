"""What all adapters that go through Hugging Face peft share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from umdseg.adapters.base import Adapter, AdapterOptions
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError

WEIGHTS = "adapter_model.safetensors"
# peft's own name for the only adapter; it is saved without a folder of its own
SINGLE = "default"


@dataclass
class PeftOptions(AdapterOptions):
    """Options of adapters that can be kept per modality.

    Attributes:
        per: modality gives every trained modality an adapter of its own; scans of other modalities get
            the base model. None = one adapter for all.
    """

    per: Literal["modality"] | None = None


class PeftAdapter(Adapter):
    """An adapter that is a peft configuration; `backbone.net` becomes peft's wrapper of the network."""

    Options: ClassVar[type[AdapterOptions]] = PeftOptions

    @abstractmethod
    def config(self, backbone: Backbone, rows: list[int]) -> Any:
        """The peft configuration, `rows` being the class rows to train."""

    def _inject(self, backbone: Backbone, rows: list[int]) -> None:
        from peft import get_peft_model

        if cast(PeftOptions, self.options).per and not self.routes:
            raise UserError("no modality to give an adapter to", where="adapter.per", expected="null")
        first, *others = self.routes or (SINGLE,)
        try:
            backbone.net = get_peft_model(backbone.net, self.config(backbone, rows), adapter_name=first)
            for name in others:
                _wrapper(backbone).add_adapter(name, self.config(backbone, rows))
        # peft says so when a pattern matches nothing, or a layer it cannot wrap
        except ValueError as error:
            raise UserError(
                f"adapter '{self.method}' does not fit model {backbone.card.name}: {error}",
                where="adapter.targets",
                expected=f"a regular expression of module names, such as {backbone.card.adapter_targets}",
            ) from error
        self._trained = []
        for name in (first, *others):
            _wrapper(backbone).set_adapter(name)
            self._trained += [p for p in backbone.net.parameters() if p.requires_grad]
        if self.routes:
            # nobody has said which modality yet
            self._select(backbone, None)
        self._keep_training()

    def _select(self, backbone: Backbone, route: str | None) -> None:
        net = _wrapper(backbone)
        if route is None:
            net.base_model.disable_adapter_layers()
        else:
            net.base_model.enable_adapter_layers()
            net.set_adapter(route)
        self._keep_training()

    def _keep_training(self) -> None:
        # peft freezes what it makes inactive; here the other modalities' adapters train in the same step
        for parameter in self._trained:
            parameter.requires_grad_(True)

    @contextmanager
    def _disabled(self, backbone: Backbone) -> Iterator[None]:
        try:
            with _wrapper(backbone).disable_adapter():
                yield
        finally:
            self._keep_training()

    def _merge(self, backbone: Backbone, route: str | None = None) -> None:
        backbone.net = _wrapper(backbone).merge_and_unload(adapter_names=[route or SINGLE])

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

        net = _wrapper(backbone)
        for name in self.routes or (SINGLE,):
            path = folder / name / WEIGHTS if self.routes else folder / WEIGHTS
            state = read_state(path)
            own = get_peft_model_state_dict(net, adapter_name=name, save_embedding_layers=False)
            check_fit(own, state, where=path, what=f"adapter '{self.method}'")
            set_peft_model_state_dict(net, state, adapter_name=name)


def _wrapper(backbone: Backbone) -> Any:
    return backbone.net


def class_table(backbone: Backbone, rows: list[int]) -> dict[str, list[int]] | None:
    """Peft's `trainable_token_indices` for learned class rows: those rows train, the others cannot."""
    return {backbone.card.class_rows: rows} if rows else None
