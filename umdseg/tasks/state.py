"""What training changes: the trained tensors, and the running statistics of norm layers in training mode."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> tensor that requires gradients."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    """Name -> running mean, variance and counter of the norm layers that follow the data in training.

    Which ones do is what the module's own `train` says (see `Backbone.train`: norm layers of a frozen base
    do not), whatever mode it is in now; its mode stays as it is.
    """
    norms = [(name, norm) for name, norm in module.named_modules() if isinstance(norm, _NormBase)]
    norms = [(name, norm) for name, norm in norms if norm.track_running_stats]
    if not norms:
        return {}
    modes = [(part, part.training) for part in module.modules()]
    module.train()
    live = [(name, norm) for name, norm in norms if norm.training]
    for part, mode in modes:
        part.training = mode
    return {f"{name}.{key}": value for name, norm in live for key, value in norm.named_buffers(recurse=False)}


def learned(module: nn.Module) -> dict[str, torch.Tensor]:
    """Both: weights go with the statistics they were trained with, so they are kept and put back together."""
    return {**trained(module), **statistics(module)}


def copied(module: nn.Module) -> dict[str, torch.Tensor]:
    """`learned` as it is now."""
    return {name: value.detach().clone() for name, value in learned(module).items()}


def put(module: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Write values into what `learned` names."""
    own = learned(module)
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
