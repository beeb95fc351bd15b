"""`model=torch_module`: import, build, describe, load."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from umdseg.backbones.card import Weights
from umdseg.backbones.listing import Listing
from umdseg.backbones.torch_module.backbone import TorchModule
from umdseg.backbones.torch_module.card_file import read_card
from umdseg.backbones.torch_module.options import TorchModuleOptions
from umdseg.backbones.weights import load_weights
from umdseg.errors import UserError, nearest
from umdseg.vocabulary import Modality


class _Factory:
    """Builds the model from its options."""

    Options = TorchModuleOptions

    def __call__(self, options: TorchModuleOptions) -> TorchModule:
        options.validate()
        found = read_card(str(options.card))
        net = build(str(options.module), options.arguments)
        targets, stem = _places(net)
        card = replace(
            found.card,
            adapter_targets=found.card.adapter_targets or targets,
            stem=found.card.stem or stem,
        )
        return load_weights(TorchModule(card, net, found.channels), options)

    def takes(self, options: TorchModuleOptions) -> tuple[Modality, ...]:
        """What the module takes together, read from its card; empty where that cannot be read."""
        try:
            channels = read_card(options.card).channels if options.card else ()
        except UserError:
            # what is wrong with the card is said when the model is built
            return ()
        return channels if len(channels) > 1 else ()

    def listing(self) -> Listing:
        """One row of the list of models; everything is in the user's card."""
        weights = Weights(None, "", None, "yours", None, "not verified: your own module and card")
        return Listing("torch_module", None, weights, (), ("auto",), "", card=None)


torch_module = _Factory()


def build(module: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Import `package.module:Class` or `file.py:Class` and call it.

    Raises:
        UserError: no such module or class (with the nearest), arguments it does not take, or what comes is
            no `torch.nn.Module`.
    """
    place, _, name = module.rpartition(":")
    source = _from_file(Path(place).expanduser()) if place.endswith(".py") else _from_package(place)
    maker = getattr(source, name, None)
    if not callable(maker):
        own = [key for key, value in vars(source).items() if callable(value) and not key.startswith("_")]
        near = nearest(name, own)
        raise UserError(f"{place} has no '{name}'", where="model.module", expected="a class", nearest=near)
    try:
        inspect.signature(maker).bind(**arguments)
    except TypeError as error:
        shown = f"{name}{inspect.signature(maker)}"
        raise UserError(f"{name}: {error}", where="model.arguments", expected=shown) from error
    net = maker(**arguments)
    if not isinstance(net, nn.Module):
        raise UserError(
            f"{module} made a {type(net).__name__}", where="model.module", expected="a torch.nn.Module"
        )
    return net


def _from_package(name: str) -> ModuleType:
    # a console script, unlike `python -m`, does not look into the folder it was started in
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(
                f"{name} needs the package '{error.name}', which is not installed",
                where="model.module",
                expected=f"pip install {error.name}",
            ) from error
        raise UserError(
            f"no module named '{error.name}'",
            where="model.module",
            expected="an importable module, or a .py file",
        ) from error
    finally:
        sys.path.remove(here)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError("the module's file does not exist", where=path, expected="model.module=FILE.py:Class")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError("not a Python file", where=path)
    source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    return source


def _places(net: nn.Module) -> tuple[str, str]:
    """Where adapters and early fusion go when the card does not say: wide convolutions, the first of all."""
    import re

    layers = [(name, layer) for name, layer in net.named_modules() if isinstance(layer, nn.Conv3d)]
    wide = [name for name, layer in layers if set(layer.kernel_size) == {3} and layer.groups == 1]
    return "|".join(map(re.escape, wide)), layers[0][0] if layers else ""
