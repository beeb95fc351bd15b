"""The official network of a plans file, each of its modules under one name, and strict loading into it."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from umdseg.backbones.weights import State, check_fit
from umdseg.errors import UserError

PLAIN = "nnUNetTrainer"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep nnU-Net's chatter off standard output, and its warning that plans are old."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def build_network(
    plans: Any, configuration: Any, inputs: int, outputs: int, trainer: str
) -> tuple[nn.Module, bool]:
    """The network as its trainer builds it, without deep supervision.

    A trainer that nnunetv2 does not have (or whose packages are not installed) is taken to build what the
    plans say, as nearly all do; where it did not, strict loading refuses the weights.

    Args:
        plans: nnU-Net's PlansManager.
        configuration: its ConfigurationManager (rebuilds the architecture of older plans).
        inputs: channels in.
        outputs: channels out.
        trainer: name of the trainer class.

    Returns:
        The network, and whether the trainer was found.
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    # the plain trainer builds what the plans say; looking it up would import all of training
    maker = None if trainer == PLAIN else _trainer(trainer)
    with quiet():
        if maker is not None:
            return maker.build_network_architecture(plans, configuration, inputs, outputs, False), True
        network = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            inputs,
            outputs,
            deep_supervision=False,
        )
    return cast(nn.Module, network), trainer == PLAIN


def _trainer(name: str) -> Any:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with quiet():
            return recursive_find_trainer_class_by_name(name)
    # not among nnunetv2's (RuntimeError), or it looked into one that needs timm or seaborn
    except (RuntimeError, ImportError):
        return None


def one_name_each(net: nn.Module) -> dict[str, str]:
    """Leave every module of nnU-Net's network reachable under one name only; results do not change.

    The official classes register a convolution as `conv` and again inside `all_modules`, which `forward`
    runs, and the whole encoder again as `decoder.encoder`: up to four names for one tensor. An adapter that
    replaces `conv` would then have no effect.

    Returns:
        Every name a tensor had -> the name it has now.
    """
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for name, module in net.named_modules(remove_duplicate=False):
        kept = first.setdefault(id(module), name)
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for key, _ in own:
            names[f"{name}.{key}" if name else key] = f"{kept}.{key}" if kept else key
    for module in list(net.modules()):
        inner = module._modules.get("all_modules")
        if isinstance(inner, nn.Sequential):
            outer = {id(child): name for name, child in module.named_children() if name != "all_modules"}
            steps = [outer.get(id(step)) for step in inner]
            if all(step is not None for step in steps):
                module.all_modules = _Steps(module, [str(step) for step in steps])
    decoder, encoder = net._modules.get("decoder"), net._modules.get("encoder")
    if decoder is not None and decoder._modules.get("encoder") is encoder is not None:
        # its forward takes the skips; only the constructor looks at the encoder
        del decoder._modules["encoder"]
    return names


class _Steps(nn.Module):
    """Runs children of another module by name, without being a second owner of them."""

    def __init__(self, owner: nn.Module, steps: list[str]) -> None:
        super().__init__()
        # in a tuple, so that it is not registered as a child
        self._owner, self._steps = (owner,), steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self._steps:
            x = self._owner[0].get_submodule(step)(x)
        return x


def fit_state(
    net: nn.Module, names: Mapping[str, str], state: Mapping[str, torch.Tensor], where: Path, drop: str = ""
) -> State:
    """The checkpoint's tensors under the network's own names, complete or refused.

    Args:
        net: with one name per tensor.
        names: all former names -> the present one, from `one_name_each`.
        state: as in the checkpoint.
        where: file, for messages.
        drop: prefix of names that belong to a second head that inference does not use.

    Raises:
        UserError: names are missing, left over, of another shape, or two names of one tensor differ.
    """
    found: State = {}
    for name, value in state.items():
        if drop and name.startswith(drop):
            continue
        kept = names.get(name, name)
        if kept in found and not torch.equal(found[kept], value):
            raise UserError(
                f"the checkpoint has two values for one tensor: {name} and {kept}",
                where=where,
                expected="the same value under all its names, as nnU-Net writes it",
            )
        found.setdefault(kept, value)
    check_fit(net.state_dict(), found, where, what=type(net).__name__)
    return found
