"""Whether what an adapter trains is reached by gradients.

A layer that was replaced under a name the network does not run, or that lies on a branch nobody prompts,
stays what it was, silently. Whoever trains calls `GradientWatch.step` after each backward pass; it looks at
the tensors that have had no gradient yet, or one of zeros only, and at none once all have. At the end comes
`GradientWatch.finish`, for fits too short to have been judged.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from torch import nn

from umdseg.adapters.reach import reachable
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

    An adapted layer without a gradient is refused if no kind of prompt that the model takes could bring it
    one: those the steps were prompted by have not, and of each other kind one pass is tried (`reachable`). A
    layer that another kind reaches is named and allowed: not to prompt that way is the user's choice. Tables
    wait longer, their rows train only when they are asked for.

    Args:
        backbone: the adapted model.
        patience: steps after which every adapted layer must have had a gradient.
    """

    def __init__(self, backbone: Backbone, patience: int = PATIENCE) -> None:
        self.patience, self.steps, self.kinds = patience, 0, set[str]()
        self.done = False
        self._backbone, self._model = backbone, backbone.card.name
        self._branches = {kind for kind in BRANCHES if kind in backbone.card.prompts}
        # of methods that put something beside layers, each must count; "all biases" includes idle ones
        self._strict = "targets" in getattr(backbone.adapter, "needs", ())
        self._left = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
        # no gradient at all yet, not even zeros
        self._silent = set(self._left)
        self._layers = trained_layers(backbone)
        tables = {name for name, module in backbone.named_modules() if isinstance(module, nn.Embedding)}
        self._tables = {layer for layer in self._layers if any(_around(layer, table) for table in tables)}

    def step(self, kind: str) -> None:
        """Look at the gradients of one step, before they are cleared.

        Args:
            kind: how the step was prompted: auto, point, box or text.

        Raises:
            UserError: no trained tensor has a gradient, or an adapted layer has had none in `patience` steps
                and none could come.
        """
        if self.done:
            return
        self.steps += 1
        self.kinds.add(kind)
        missing = {name for name, p in self._left.items() if p.grad is None}
        self._silent &= missing
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
            self._judge(unreached(self._layers, self._left), self._branches - self.kinds)

    def finish(self) -> None:
        """Judge a fit that has ended before its patience.

        In a few steps a kind of prompt need not have asked in all its ways, and zeros may be those of a part
        behind a zero gate: refused are only layers that had no gradient at all and that none could reach.

        Raises:
            UserError: there are such layers.
        """
        if self.steps and not self.done:
            self._judge(unreached(self._layers, self._silent), self._branches)

    def _judge(self, suspects: list[str], kinds: Collection[str]) -> None:
        """Refuse those of the suspects that none of the kinds reaches; name all that is unreached."""
        self.done = True
        dead, unseen = unreached(self._layers, self._left), sorted(self._branches - self.kinds)
        lost = self._lost(suspects, kinds) if self._strict else []
        after = f"after {self.steps} step{'s' if self.steps > 1 else ''} no gradient has reached"
        if lost:
            tried = f", nor could a prompt by {' or '.join(unseen)}" if unseen else ""
            raise UserError(
                f"{after} {told(lost)}{tried}",
                where="adapter.targets",
                expected="layers that the model's answers depend on",
            )
        if dead:
            why = f"; no step was prompted by {', '.join(unseen)}" if unseen else ""
            _log.warning("%s %s%s", after, told(dead), why)

    def _lost(self, suspects: list[str], kinds: Collection[str]) -> list[str]:
        lost = [layer for layer in suspects if layer not in self._tables]
        for kind in sorted(kinds):
            if lost:
                found = reachable(self._backbone, self._layers, kind)
                lost = [layer for layer in lost if layer not in found]
        return lost


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
