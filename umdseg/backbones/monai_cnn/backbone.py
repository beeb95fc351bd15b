"""What networks that end in a 1x1x1 convolution over a fixed list of classes share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from umdseg.backbones.base import Backbone, Features
from umdseg.backbones.card import Card
from umdseg.errors import UserError
from umdseg.seeds import derive
from umdseg.vocabulary import Prompt

# rows for structures the head has no class for
NEW_ROWS = 64
ROWS = "class_rows"
State = dict[str, torch.Tensor]


class ClassNet(Backbone):
    """Encoder once, decoder once, then any classes.

    The official network stays as it is, its tensors under their own names; beside it lies a table
    (`class_rows`) with one row, weights and bias of one more output channel, per learned structure. Row n
    is class index n; the rows of the head's own classes are unused.

    Args:
        card: its `structures` are output channels of the head.
        net: the official network.
        head: name of its last convolution.
        pretrained: prefixes of the names of the tensors that the published file holds; empty = all of them.
    """

    def __init__(self, card: Card, net: nn.Module, head: str, pretrained: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.card, self.net, self.new_structures = card, net, {}
        self._head, self._pretrained = head, pretrained
        self._free_rows: dict[int, torch.Tensor] = {}
        last: Any = net.get_submodule(head)
        table = nn.Embedding(last.out_channels + NEW_ROWS, last.in_channels + 1)
        nn.init.zeros_(table.weight)
        net.add_module(ROWS, table)

    @abstractmethod
    def _encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps, finest first, of windows (B, 1, X, Y, Z)."""

    @abstractmethod
    def _decode(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """The input of the head (B, C, X, Y, Z)."""

    def encode(self, image: torch.Tensor, affine: torch.Tensor | None = None) -> Features:
        """Encode windows (B, 1, X, Y, Z); without `affine`, voxel 0 is at 0 mm and axes are RAS."""
        shape = self.check_edges(image)
        if affine is None:
            spacing = self.card.spacing or (1.0, 1.0, 1.0)
            affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
            affine = affine.expand(image.shape[0], 4, 4)
        return Features(self._encode(image), affine, shape)

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (B, K, X, Y, Z) of class prompts; of competing classes, see `class_logits`."""
        self.check_prompts(prompts)
        names = [prompt.structure for prompt in prompts]
        if self.card.output == "softmax":
            return self.class_logits(self.dense(features), names)
        groups = [self.card.members(name) for name in names]
        asked = list(dict.fromkeys(member for group in groups for member in group))
        if self._linear():
            logits = _project(self._body(features), self.class_vectors(asked))
        else:
            logits = self._logits(features)[:, [self.index(member) for member in asked]]
        planes = [logits[:, [asked.index(member) for member in group]].amax(dim=1) for group in groups]
        return torch.stack(planes, dim=1)

    def dense(self, features: Features) -> torch.Tensor:
        """(B, D, X, Y, Z): of competing classes their logits; else the head's input and a channel of ones.

        Where an adapter makes the last convolution more than its weights, the logits of all classes.
        """
        if self.card.output == "softmax" or not self._linear():
            return self._logits(features)
        body = self._body(features)
        return torch.cat([body, torch.ones_like(body[:, :1])], dim=1)

    def class_vectors(self, structures: Sequence[str]) -> torch.Tensor:
        """(K, D): weights and bias of each structure's output channel, or which of all logits is its."""
        if self.card.output == "softmax":
            return super().class_vectors(structures)
        if self._linear():
            return torch.stack([self._rows([self.index(name)])[0] for name in structures])
        wanted = torch.tensor([self.index(name) for name in structures], device=self._last().weight.device)
        return functional.one_hot(wanted, self._outputs() + len(self._learned())).to(torch.float32)

    def head_input(self, features: Features) -> torch.Tensor:
        """(B, C, X, Y, Z): the input of the last convolution."""
        return self._body(features)

    def competing_rows(self) -> torch.Tensor | None:
        """(N, C + 1): every output channel's weights and bias, the head's own and learned ones."""
        return self._all_rows() if self.card.output == "softmax" and self._linear() else None

    def class_logits(self, dense: torch.Tensor, structures: Sequence[str]) -> torch.Tensor:
        """As `Backbone.class_logits`; a class of the head competes with the head's other classes only.

        So what the base says about its own classes does not depend on what has been learned since; a
        learned structure competes with all.
        """
        base = self._outputs()
        own = [[self.index(member) for member in self.card.members(name)] for name in structures]
        planes = []
        for channels in own:
            pool = base if max(channels) < base else dense.shape[1]
            rest = [channel for channel in range(pool) if channel not in channels]
            planes.append(torch.logsumexp(dense[:, channels], 1) - torch.logsumexp(dense[:, rest], 1))
        return torch.stack(planes, dim=1)

    def add_structures(self, structures: Sequence[str]) -> dict[str, int]:
        """Output channels for the unknown among `structures`.

        They start from the mean of the head's own, which is never above the highest of them: at the start no
        voxel changes its class. Where the head has no class but the background, they start at random.
        """
        new = [name for name in dict.fromkeys(structures) if not self.knows(name)]
        used = set(self.new_structures.values())
        free = [row for row in self.card.new_rows if row not in used]
        if len(new) > len(free):
            raise UserError(
                f"model {self.card.name} has no class rows left for {len(new)} new structures",
                expected=f"at most {len(free)}",
            )
        rows = dict(zip(new, free, strict=False))
        table = self._part(ROWS).weight
        with torch.no_grad():
            for row in rows.values():
                self._free_rows[row] = table[row].clone()
                table[row] = self._start(row)
        self.new_structures.update(rows)
        return {name: self.index(name) for name in structures if name not in self.card.groups}

    def forget_structures(self) -> None:
        """Put back what the learned structures' rows held."""
        with torch.no_grad():
            for row, values in self._free_rows.items():
                self._part(ROWS).weight[row] = values
        self._free_rows, self.new_structures = {}, {}

    def train(self, mode: bool = True) -> ClassNet:
        """As usual, but batch norm keeps the statistics of its weights: an adapter must not move the base."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def convert(self, state: State) -> State:
        """Published names -> the network's own, completed where only a part of the network is published."""
        state = self._rename(state)
        own = self.net.state_dict()
        table = f"{ROWS}.weight"
        state.setdefault(table, own[table])
        if self._pretrained and not any(key in state for key in own if self._is_fresh(key)):
            fresh = {key: value for key, value in own.items() if self._is_fresh(key)}
            state |= fresh
        return state

    def _rename(self, state: State) -> State:
        """Published names -> the network's own; names that are its own already stay."""
        return dict(state)

    def _is_fresh(self, key: str) -> bool:
        return key != f"{ROWS}.weight" and not key.startswith(self._pretrained)

    def _body(self, features: Features) -> torch.Tensor:
        if "body" not in features.state:
            features.state["body"] = self._decode(features.maps)
        return cast(torch.Tensor, features.state["body"])

    def _logits(self, features: Features) -> torch.Tensor:
        """(B, N, X, Y, Z): the head's own output, whatever is beside it, and the learned structures'."""
        body = self._body(features)
        if "logits" not in features.state:
            features.state["logits"] = self._last()(body)
        logits: torch.Tensor = features.state["logits"]
        learned = self._learned()
        return torch.cat([logits, _project(body, self._rows(learned))], dim=1) if learned else logits

    def _all_rows(self) -> torch.Tensor:
        """(N, C + 1): of every output channel, in the order of `_logits`."""
        rows, learned = self._rows(range(self._outputs())), self._learned()
        return torch.cat([rows, self._rows(learned)]) if learned else rows

    def _learned(self) -> range:
        """Rows after the head's own, up to the last learned one."""
        own = self._outputs()
        return range(own, max(self.new_structures.values(), default=own - 1) + 1)

    def _linear(self) -> bool:
        """Whether the last layer is what its weight and bias say: no adapter wraps it or adds to it."""
        last = self._last()
        # a trained head is parametrized: read, its weight is the one at work
        plain = parametrize.type_before_parametrizations(last) is nn.Conv3d
        return plain and not last._forward_hooks and not last._forward_pre_hooks

    def _outputs(self) -> int:
        # an adapter's wrapper has the weight, but not all that a convolution knows
        return int(self._last().weight.shape[0])

    def _rows(self, indices: Sequence[int]) -> torch.Tensor:
        """(N, C + 1) weights and biases of output channels, the head's own or learned ones."""
        last = self._last()
        own = torch.cat([last.weight.flatten(1), last.bias[:, None]], dim=1)
        if max(indices) < len(own):
            return own[list(indices)]
        # asked as a module: an adapter may train some rows of the table only
        found: torch.Tensor = self._part(ROWS)(torch.tensor(list(indices), device=own.device))
        return found

    def _start(self, row: int) -> torch.Tensor:
        outputs, inputs = self._last().weight.shape[:2]
        if outputs > 1:
            return self._rows(range(outputs)).mean(dim=0)
        # equal to the background's, its gradient would not reach the features
        noise = torch.Generator().manual_seed(derive(torch.initial_seed(), "class row", row))
        weights = torch.randn(inputs, generator=noise) / inputs**0.5
        return torch.cat([weights, torch.zeros(1)])

    def _last(self) -> Any:
        module = self.net
        for name in self._head.split("."):
            module = getattr(module, name) if not name.isdigit() else cast(Any, module)[int(name)]
        return module

    def _part(self, name: str) -> Any:
        # an adapter may have wrapped the network; its wrapper passes attributes through
        return getattr(self.net, name)


def _project(body: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(B, C, X, Y, Z) under (K, C + 1) weights and biases -> (B, K, X, Y, Z)."""
    return functional.conv3d(body, rows[:, :-1, None, None, None], rows[:, -1])
