"""Whether what an adapter trains is reached by gradients.

A layer that was replaced under a name the network does not run, or that lies on a branch nobody prompts,
stays what it was, silently. Whoever trains calls `GradientWatch.step` after each backward pass; it looks at
the tensors that have had no gradient yet, or one of zeros only, and at none once all have.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from torch import nn

from umdseg.backbones.base import Backbone
from umdseg.errors import UserError

_log = logging.getLogger(__name__)

PATIENCE = 50
# prompt kinds that exercise different branches; clicks and auto_point are points again
BRANCHES = ("auto", "point", "box", "text")
# peft's wrapper and ours before the network's own names
_PREFIXES = ("net.base_model.model.", "net.")


class GradientWatch:
    """Refuses adapters that no gradient reaches, and names parts that none has reached after a while.

    Args:
        backbone: the adapted model.
        patience: steps after which every adapted layer must have had a gradient, if every kind of prompt that
            the model takes was among them; tables wait longer, their rows train only when they are asked for.
    """

    def __init__(self, backbone: Backbone, patience: int = PATIENCE) -> None:
        self.patience, self.steps, self.kinds = patience, 0, set[str]()
        self.done = False
        self._model = backbone.card.name
        self._branches = {kind for kind in BRANCHES if kind in backbone.card.prompts}
        # of methods that put something beside layers, each must count; "all biases" includes idle ones
        self._strict = "targets" in getattr(backbone.adapter, "needs", ())
        self._left = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
        self._layers = trained_layers(backbone)
        tables = {name for name, module in backbone.named_modules() if isinstance(module, nn.Embedding)}
        self._tables = {layer for layer in self._layers if any(_around(layer, table) for table in tables)}

    def step(self, kind: str) -> None:
        """Look at the gradients of one step, before they are cleared.

        Args:
            kind: how the step was prompted: auto, point, box or text.

        Raises:
            UserError: no trained tensor has a gradient, or an adapted layer has had none in `patience` steps.
        """
        if self.done:
            return
        self.steps += 1
        self.kinds.add(kind)
        missing = {name for name, p in self._left.items() if p.grad is None}
        dead = unreached(self._layers, missing)
        if len(dead) == len(self._layers):
            raise UserError(
                f"no gradient reaches what is trained of model {self._model} ({plain(dead[0])}, ...)",
                where="adapter.targets",
                expected=f"layers that a step prompted by {kind} runs",
            )
        # zeros are none in the long run, but the first step of a part behind a zero gate may have them
        self._left = {name: p for name, p in self._left.items() if p.grad is None or not p.grad.any()}
        if not self._left:
            self.done = True
        elif self.steps >= self.patience:
            self.done = True
            self._judge(unreached(self._layers, self._left))

    def _judge(self, dead: list[str]) -> None:
        idle = [layer for layer in dead if layer not in self._tables]
        missing = self._branches - self.kinds
        if self._strict and idle and not missing:
            raise UserError(
                f"after {self.steps} steps no gradient has reached {told(idle)}",
                where="adapter.targets",
                expected="layers that the model's answers depend on",
            )
        if dead:
            why = f"; no step was prompted by {', '.join(sorted(missing))}" if missing else ""
            _log.warning("after %d steps no gradient has reached %s%s", self.steps, told(dead), why)


def check_gradients(backbone: Backbone) -> None:
    """Refuse a model some of whose adapted layers have no gradient now, after backward passes of all kinds.

    Raises:
        UserError: naming them.
    """
    left = {name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None}
    dead = unreached(trained_layers(backbone), left)
    if dead:
        raise UserError(f"no gradient reaches {told(dead)}", where="adapter.targets")


def trained_layers(backbone: Backbone) -> dict[str, list[str]]:
    """Adapted layer -> names of its trained tensors.

    The layer is the smallest module around a trained tensor that holds frozen ones too: what was adapted. Of
    a network that trains as a whole there is one, the network.
    """
    around = {""}
    trained = []
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            trained.append(name)
        else:
            parts = name.split(".")
            around |= {".".join(parts[:count]) for count in range(1, len(parts))}
    found: dict[str, list[str]] = {}
    for name in trained:
        layer = name
        while layer not in around:
            layer = layer.rpartition(".")[0]
        found.setdefault(layer, []).append(name)
    return found


def unreached(layers: Mapping[str, list[str]], left: Collection[str]) -> list[str]:
    """Layers all of whose trained tensors are in `left`."""
    return [layer for layer, names in layers.items() if all(name in left for name in names)]


def told(layers: list[str]) -> str:
    """The first few of them, in the network's own names."""
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    return ", ".join(plain(layer) for layer in layers[:3]) + more


def plain(layer: str) -> str:
    """A name without the wrappers' part."""
    return next((layer.removeprefix(prefix) for prefix in _PREFIXES if layer.startswith(prefix)), layer)


def _around(layer: str, table: str) -> bool:
    return table == layer or table.startswith(f"{layer}.") or layer.startswith(f"{table}.")
