"""Where adapters go: layers found by name, with all names of shared ones, and replaced under all of them.

Some networks reach one module under several names (nnU-Net's `conv` runs again inside `all_modules`, and its
encoder hangs once more below the decoder). Replacing one name only would leave the others at the old module:
an adapter without effect and without gradient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from umdseg.errors import UserError

KINDS: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# what a pattern may name and no adapter can wrap, and why
_NEVER: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.modules.conv._ConvTransposeNd, "transposed convolutions stay frozen"),
    (NonDynamicallyQuantizableLinear, "torch's attention reads its projection's weight past the module"),
)


@dataclass(frozen=True)
class Layer:
    """One layer of a network.

    Attributes:
        names: every name it can be reached by; the first is that of `named_modules()`.
        module: the layer.
    """

    names: tuple[str, ...]
    module: nn.Module

    @property
    def name(self) -> str:
        """Its first name."""
        return self.names[0]


def find(
    net: nn.Module,
    pattern: str,
    *,
    kinds: tuple[type[nn.Module], ...] = KINDS,
    where: str = "adapter.targets",
    example: str = "",
) -> list[Layer]:
    """The layers of the given kinds that a regular expression names in full, each once, in network order.

    Modules of other kinds under the pattern are passed over (transposed convolutions among them).

    Args:
        net: network without an adapter.
        pattern: regular expression of whole module names; any name of a shared module will do.
        kinds: layer classes an adapter can wrap.
        where: option the pattern came from, for messages.
        example: a pattern that fits the network, for messages.

    Raises:
        UserError: the pattern is no regular expression, names nothing, or only what no adapter can wrap.
    """
    chosen = compiled(pattern, where)
    found = layers(net)
    hit = [layer for layer in found if any(chosen.fullmatch(name) for name in layer.names)]
    fitting = [layer for layer in hit if isinstance(layer.module, kinds) and not _never(layer.module)]
    if fitting:
        return fitting
    words = ", ".join(kind.__name__ for kind in kinds)
    expected = f"a regular expression that names {words} layers"
    raise UserError(
        f"'{pattern}' names {_only(hit)}",
        where=where,
        expected=f"{expected}, such as {example}" if example else expected,
        nearest=_nearest(pattern, [layer.name for layer in found if isinstance(layer.module, kinds)]),
    )


def layers(net: nn.Module) -> list[Layer]:
    """All modules below `net`, each once, with all their names."""
    names: dict[int, list[str]] = {}
    modules: dict[int, nn.Module] = {}
    for name, module in net.named_modules(remove_duplicate=False):
        if name:
            names.setdefault(id(module), []).append(name)
            modules[id(module)] = module
    return [Layer(tuple(names[key]), module) for key, module in modules.items()]


def replace(net: nn.Module, names: Sequence[str], module: nn.Module) -> None:
    """Put `module` in place under every one of `names`.

    All parents are looked up first: a name may lead through a module that another name replaces.
    """
    parents = [(net.get_submodule(parent), child) for parent, _, child in (n.rpartition(".") for n in names)]
    for parent, child in parents:
        parent._modules[child] = module


def pattern_of(net: nn.Module, chosen: Sequence[Layer], pattern: str) -> str:
    """A regular expression that names exactly the chosen layers by their first names.

    Args:
        net: the network they are in.
        chosen: what `find` gave.
        pattern: kept where it does so already (short and readable in a saved adapter).
    """
    wanted = {layer.name for layer in chosen}
    if {name for name, _ in net.named_modules() if name and re.fullmatch(pattern, name)} == wanted:
        return pattern
    return "|".join(re.escape(name) for name in sorted(wanted))


def compiled(pattern: str, where: str) -> re.Pattern[str]:
    """The compiled expression.

    Raises:
        UserError: it is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"'{pattern}' is no regular expression: {error}", where=where) from error


def widths(module: nn.Module) -> tuple[int, int]:
    """(inputs, outputs): features of a linear layer, channels of a convolution."""
    layer = cast(Any, module)
    if isinstance(module, nn.Linear):
        return int(layer.in_features), int(layer.out_features)
    return int(layer.in_channels), int(layer.out_channels)


def _never(module: nn.Module) -> str:
    return next((why for kind, why in _NEVER if isinstance(module, kind)), "")


def _only(hit: Sequence[Layer]) -> str:
    if not hit:
        return "no module"
    reasons = sorted({_never(layer.module) for layer in hit} - {""})
    kinds = ", ".join(sorted({type(layer.module).__name__ for layer in hit}))
    return f"only {kinds}" + (f" ({'; '.join(reasons)})" if reasons else "")


def _nearest(pattern: str, names: Sequence[str]) -> str | None:
    return next(iter(get_close_matches(pattern, names, n=1, cutoff=0.5)), None)
