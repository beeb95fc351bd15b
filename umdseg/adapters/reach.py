"""Which adapted layers a kind of prompt can reach, found with one pass over a small window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from umdseg.backbones.base import Backbone
from umdseg.backbones.card import Card
from umdseg.errors import UserError
from umdseg.vocabulary import Origin, Prompt

Shape = tuple[int, int, int]


def reachable(backbone: Backbone, layers: Mapping[str, list[str]], kind: str) -> set[str]:
    """Layers with a trained tensor that answers to a kind of prompt are computed from.

    Gradients, statistics of norm layers and random numbers of the training around it stay as they are. A
    pass that cannot be made (no memory left, texts) decides nothing: then every layer may be reached.

    Args:
        backbone: the adapted model; of several adapters one is looked at, as all sit in the same layers.
        layers: adapted layer -> names of its trained tensors.
        kind: auto, point or box.
    """
    tensors = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    try:
        with _quiet(backbone), torch.enable_grad(), backbone.routed(_origin(backbone)):
            answers = _answers(backbone, kind)
            if not answers.requires_grad:
                return set()
            # not backward: whoever trains has gradients of their own, and perhaps hooks on them
            found = torch.autograd.grad(answers, list(tensors.values()), allow_unused=True)
    except (UserError, RuntimeError, ValueError):
        return set(layers)
    used = {name for name, gradient in zip(tensors, found, strict=True) if gradient is not None}
    return {layer for layer, names in layers.items() if used.intersection(names)}


def _answers(backbone: Backbone, kind: str) -> torch.Tensor:
    """The sum of all logits of a window of noise, asked in every way that the kind stands for."""
    shape, card = _window(backbone), backbone.card
    like = next(p for p in backbone.parameters() if p.is_floating_point())
    image = torch.rand(1, max(1, len(backbone.takes)), *shape, device=like.device, dtype=like.dtype)
    spacing = card.spacing or (1.0, 1.0, 1.0)
    affine = torch.diag(torch.tensor([*spacing, 1.0], device=like.device))[None]
    structure = next(iter([*backbone.new_structures, *card.structures, "liver"]))
    asked = _prompts(card, structure, kind, shape)
    features = backbone.encode(image, affine)
    # one by one: kinds of clicks do not mix in one call
    return torch.stack([backbone.decode(features, [prompt]).float().sum() for prompt in asked]).sum()


def _prompts(card: Card, structure: str, kind: str, shape: Shape) -> list[Prompt]:
    """In a window whose first voxel lies at 0 mm."""
    spacing = card.spacing or (1.0, 1.0, 1.0)
    low, middle, high = (_at(shape, spacing, share) for share in (0.25, 0.5, 0.75))
    if kind == "auto":
        return [Prompt(structure)]
    if kind == "box":
        return [Prompt(structure, "box", box=(low, high))]
    if kind != "point":
        raise ValueError(f"'{kind}' prompts cannot be made up")
    one = Prompt(structure, "point", (middle,), (1,))
    several = Prompt(structure, "clicks", (middle, low), (1, 0))
    return [one, several] if "clicks" in card.prompts else [one]


def _at(shape: Shape, spacing: Sequence[float], share: float) -> tuple[float, float, float]:
    x, y, z = ((edge * share - 0.5) * step for edge, step in zip(shape, spacing, strict=True))
    return x, y, z


def _window(backbone: Backbone) -> Shape:
    """(X, Y, Z) the smallest window that says anything; of models that see slices, two of them."""
    card = backbone.card
    if card.slicewise:
        return card.window[0], card.window[1], 2
    if card.fixed_window or card.divisor >= min(card.window):
        return card.window
    return (2 * card.divisor,) * 3


def _origin(backbone: Backbone) -> Origin | None:
    """A scan of the first of several adapters, whatever chooses among them."""
    routes = backbone.adapter.routes if backbone.adapter is not None else ()
    return Origin(*[routes[0]] * 3) if routes else None


@contextmanager
def _quiet(backbone: Backbone) -> Iterator[None]:
    """Inside the block nothing random is drawn from the training's numbers, and no statistics move."""
    parts: list[tuple[nn.Module, bool]] = []
    for part in backbone.modules():
        if isinstance(part, (_NormBase, _DropoutNd)):
            parts.append((part, part.training))
    device: Any = next(backbone.parameters()).device
    try:
        for part, _ in parts:
            part.training = False
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            yield
    finally:
        for part, mode in parts:
            part.training = mode
