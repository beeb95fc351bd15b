"""Start one part of a network from another part's weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from umdseg.errors import UserError, unknown


def copy_parts(net: nn.Module, parts: Mapping[str, str]) -> None:
    """Copy weights between modules of the same shapes.

    A click decoder that starts as the class decoder already separates organs, and has only to learn
    which one is meant.

    Args:
        net: the network.
        parts: name of the module that is overwritten -> name of the module copied.

    Raises:
        UserError: no such module, or the shapes differ.
    """
    modules = dict(net.named_modules())
    for target, source in parts.items():
        for name in (target, source):
            if name not in modules:
                raise unknown("module", name, modules, where="fit.copy_parts")
        try:
            modules[target].load_state_dict(modules[source].state_dict())
        except RuntimeError as error:
            raise UserError(
                f"'{target}' and '{source}' differ in shape",
                where="fit.copy_parts",
                expected="two modules of the same architecture",
            ) from error
