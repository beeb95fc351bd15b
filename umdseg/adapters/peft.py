"""What all adapters that go through Hugging Face peft share."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import nn

from umdseg.adapters.base import Adapter, AdapterOptions, RoutedOptions
from umdseg.adapters.layers import Layer, find, layers, pattern_of, replace
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError

WEIGHTS = "adapter_model.safetensors"
# peft's own name for the only adapter; it is saved without a folder of its own
SINGLE = "default"
# before a route in peft's names: of an adapter peft does not save what has another adapter's name as any part
# of its own, so no module may be called what an adapter is (site `1` beside `blocks.1.conv`)
MARK = "@"


@dataclass
class PeftOptions(RoutedOptions):
    """Options of adapters that go through peft.

    Attributes:
        targets: regular expression of the names of the layers that get an adapter; None = the card's.
    """

    targets: str | None = None


class PeftAdapter(Adapter):
    """An adapter that is a peft configuration; `backbone.net` becomes peft's wrapper of the network.

    peft replaces a layer under one of its names only; here the others follow, so that networks with shared
    modules run what is trained (see `umdseg.adapters.layers`).

    Attributes:
        kinds: layer classes that peft's method can wrap.
    """

    Options: ClassVar[type[AdapterOptions]] = PeftOptions
    needs: ClassVar[tuple[str, ...]] = ("logits", "targets")
    kinds: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

    @abstractmethod
    def config(self, backbone: Backbone, rows: list[int], targets: list[Layer], pattern: str) -> Any:
        """The peft configuration.

        Args:
            backbone: the plain model.
            rows: class rows to train.
            targets: layers that get an adapter.
            pattern: regular expression that names exactly those.
        """

    def targets(self, backbone: Backbone) -> list[Layer]:
        """The layers that get an adapter.

        Raises:
            UserError: the pattern names nothing that this method can wrap.
        """
        card = backbone.card
        chosen = getattr(self.options, "targets", None) or card.adapter_targets
        return find(backbone.net, chosen, kinds=self.kinds, example=card.adapter_targets)

    def _inject(self, backbone: Backbone, rows: list[int]) -> None:
        from peft import get_peft_model

        targets = self.targets(backbone)
        chosen = getattr(self.options, "targets", None) or backbone.card.adapter_targets
        pattern = pattern_of(backbone.net, targets, chosen) if targets else ""
        config = self.config(backbone, rows, targets, pattern)
        shared = [layer for layer in layers(backbone.net) if len(layer.names) > 1]
        first, *others = self._names
        try:
            with warnings.catch_warnings():
                # grouped convolutions: peft cannot fold them, `peft_conv` can
                warnings.filterwarnings("ignore", message=".*groups > 1.*")
                backbone.net = get_peft_model(backbone.net, config, adapter_name=first)
                for name in others:
                    _wrapper(backbone).add_adapter(name, self.config(backbone, rows, targets, pattern))
        except ValueError as error:
            raise UserError(
                f"adapter '{self.method}' does not fit model {backbone.card.name}: {error}",
                where="adapter.targets",
                expected=f"a regular expression of module names, such as {backbone.card.adapter_targets}",
            ) from error
        base = _wrapper(backbone).get_base_model()
        for layer in shared:
            replace(base, layer.names[1:], base.get_submodule(layer.name))
        self._trained = []
        for name in (first, *others):
            _wrapper(backbone).set_adapter(name)
            self._trained += [p for p in backbone.net.parameters() if p.requires_grad]
        if self.routes:
            # nobody has said which one yet
            self._select(backbone, None)
        self._keep_training()

    def _select(self, backbone: Backbone, route: str | None) -> None:
        net = _wrapper(backbone)
        if route is None:
            net.base_model.disable_adapter_layers()
        else:
            net.base_model.enable_adapter_layers()
            net.set_adapter(MARK + route)
        self._keep_training()

    @property
    def _names(self) -> tuple[str, ...]:
        """What peft calls each adapter."""
        return tuple(MARK + route for route in self.routes) or (SINGLE,)

    def _keep_training(self) -> None:
        # peft freezes what it makes inactive; here the other routes' adapters train in the same step
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
        backbone.net = _unwrapped(_wrapper(backbone), fold=MARK + route if route else SINGLE)

    def _unload(self, backbone: Backbone) -> None:
        backbone.net = _unwrapped(_wrapper(backbone))

    def _write(self, folder: Path, backbone: Backbone) -> None:
        net = _wrapper(backbone)
        net.save_pretrained(str(folder), save_embedding_layers=False, state_dict=_tensors(net))
        # peft's template of a model card, empty; the facts are in umdseg_adapter.json
        (folder / "README.md").unlink(missing_ok=True)
        for route in self.routes:
            (folder / f"{MARK}{route}").rename(folder / route)

    def read(self, folder: Path, backbone: Backbone) -> None:
        """Load peft's file, refusing anything but exactly this adapter's tensors."""
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        from umdseg.adapters.peft_conv import narrowed
        from umdseg.backbones.weights import check_fit, read_state

        net = _wrapper(backbone)
        for name in self._names:
            # "" for the only one
            path = folder / name.partition(MARK)[2] / WEIGHTS
            state = read_state(path)
            own = get_peft_model_state_dict(
                net, state_dict=_tensors(net), adapter_name=name, save_embedding_layers=False
            )
            check_fit(own, state, where=path, what=f"adapter '{self.method}'")
            set_peft_model_state_dict(net, narrowed(net, state, path), adapter_name=name)


def _wrapper(backbone: Backbone) -> Any:
    return backbone.net


def _tensors(net: nn.Module) -> dict[str, torch.Tensor]:
    """The wrapped network's parameters, each under one name, in the shapes that plain peft expects."""
    from umdseg.adapters.peft_conv import widened

    return widened(net, dict(net.named_parameters()))


def _unwrapped(wrapper: Any, fold: str | None = None) -> nn.Module:
    """The plain network, peft's layers taken out under all names they have.

    peft's own `unload` and `merge_and_unload` do so under one name, and fail on class rows beside (IA)^3.

    Args:
        wrapper: peft's wrapper of the network.
        fold: adapter that is folded into the weights first.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    net: Any = wrapper.get_base_model()
    names = [fold] if fold else None
    inside: tuple[str, ...] = ()
    for layer in layers(net):
        module: Any = layer.module
        if layer.name.startswith(inside):
            continue
        if isinstance(module, AuxiliaryTrainingWrapper):
            plain = module.unload_and_optionally_merge_module(bool(fold), False, names)
        elif isinstance(module, BaseTunerLayer):
            if fold:
                module.merge(adapter_names=names)
            plain = module.get_base_layer()
        else:
            continue
        replace(net, layer.names, plain)
        inside += (f"{layer.name}.",)
    # peft warns of it when the network is wrapped again
    if hasattr(net, "peft_config"):
        del net.peft_config
    return cast(nn.Module, net)


def class_table(backbone: Backbone, rows: list[int]) -> dict[str, list[int]] | None:
    """Peft's `trainable_token_indices` for learned class rows: those rows train, the others cannot."""
    return {backbone.card.class_rows: rows} if rows else None
