"""The battery's models, and how many numbers each method trains, counted on the plain network.

A new family is one row of `MODELS`, a new method one of `COUNTS`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from umdseg.backbones import Backbone
from umdseg.backbones.card import Card

MODELS = {
    "vista3d": "vista3d",
    "nnunet": "nnunet",
    "sam2d": "sam_vit_b",
    "sam3d": "sam_med3d_turbo",
    "monai_cnn": "monai_wholebody",
}
PEFT = ("lora", "dora", "ia3")
# further kinds of model, with one method each: linear layers and convolutions together, boxes only, texts
EXTRA = {"swin": "swinunetr_btcv", "sam2": "medsam2", "voxtell": "voxtell"}
EXTRA_CELLS = [("swin", "ia3"), ("sam2", "lora"), ("voxtell", "lora")]
# rates masks of which the best is taken: a choice, which has no gradient
CHOOSING = "iou_prediction_head"
# says whether there is anything at all; where not, SAM 2 answers the same whatever it has learned
PRESENCE = r"pred_obj_score_head.*bias$"
# smaller than the other batteries': clicks take their time
WINDOWS = {"vista3d": (16, 16, 16)}
RANK = 8
REDUCTION, DEPTH_REDUCTION = 4, 16


def targets(backbone: Backbone) -> Iterator[Any]:
    """The layers the card names."""
    for name, module in backbone.net.named_modules():
        if re.fullmatch(backbone.card.adapter_targets, name):
            yield module


def sizes(layer: Any) -> tuple[int, int, tuple[int, ...]]:
    """(in, out, kernel)."""
    shape = layer.weight.shape
    return int(shape[1]), int(shape[0]), tuple(int(edge) for edge in shape[2:])


def lora(backbone: Backbone) -> int:
    """A is (r, in, *kernel), B is (out, r)."""
    return sum(RANK * (i * math.prod(k) + o) for i, o, k in map(sizes, targets(backbone)))


def dora(backbone: Backbone) -> int:
    """LoRA's, and a magnitude per output."""
    return lora(backbone) + sum(o for _, o, _ in map(sizes, targets(backbone)))


def ia3(backbone: Backbone) -> int:
    """A factor per input channel of a convolution, per output of a linear layer."""
    return sum(i if k else o for i, o, k in map(sizes, targets(backbone)))


def lora_conv(backbone: Backbone) -> int:
    """down (r, in), up (out, r), a factor (r, edge) along every axis of more than one voxel."""
    found = map(sizes, targets(backbone))
    return sum(RANK * (i + o + sum(edge for edge in k if edge > 1)) for i, o, k in found)


def bottleneck(backbone: Backbone) -> int:
    """Two maps with biases, for convolutions a kernel per channel between them; blocks get two."""
    total = 0
    for layer in targets(backbone):
        i, o, k = sizes(layer)
        width = max(i // REDUCTION, 1)
        if k:
            total += width * (i + 1) + width * math.prod(k) + o * (width + 1)
    return total + sum(2 * mlp(w, REDUCTION) for w in block_widths(backbone))


def depth(backbone: Backbone) -> int:
    """Two maps with biases and a convolution over three slices between them, once per block."""
    found = block_widths(backbone)
    narrow = [max(w // DEPTH_REDUCTION, 1) for w in found]
    return sum(mlp(w, DEPTH_REDUCTION) + n * n * 3 + n for w, n in zip(found, narrow, strict=True))


def mlp(width: int, reduction: int) -> int:
    """Down and up again, with biases."""
    narrow = max(width // reduction, 1)
    return narrow * (width + 1) + width * (narrow + 1)


def block_widths(backbone: Backbone) -> list[int]:
    """Features of every block: the inputs of its `qkv`."""
    return [
        layer.in_features for layer in targets(backbone) if layer.weight.shape[0] == 3 * layer.weight.shape[1]
    ]


def named(backbone: Backbone, wanted: Callable[[Card, str], bool]) -> int:
    """Numbers of the parameters whose name is wanted."""
    return sum(p.numel() for n, p in backbone.net.named_parameters() if wanted(backbone.card, n))


def norm(backbone: Backbone) -> int:
    """Own parameters of layers with `Norm` in their class's name."""
    found = [m for m in backbone.net.modules() if "norm" in type(m).__name__.lower()]
    return sum(p.numel() for m in found for p in m.parameters(recurse=False))


def head(backbone: Backbone) -> int:
    """All numbers of the last layers."""
    return named(backbone, lambda card, name: bool(re.fullmatch(card.head, name.rpartition(".")[0])))


def prompt(backbone: Backbone) -> int:
    """Embeddings of clicks and boxes, and a row of the class table per structure."""
    card = backbone.card
    table = f"{card.class_rows}.weight"
    clicks = named(backbone, lambda c, n: n != table and bool(re.fullmatch(c.prompt_parameters, n)))
    rows: Any = backbone.net.get_submodule(card.class_rows) if card.class_rows else nn.Embedding(1, 0)
    return clicks + len(set(card.structures.values())) * int(rows.embedding_dim)


COUNTS: dict[str, Callable[[Backbone], int]] = {
    "none": lambda backbone: 0,
    "full": lambda backbone: named(backbone, lambda card, name: True),
    "lora": lora,
    "dora": dora,
    "ia3": ia3,
    "lora_conv": lora_conv,
    "bottleneck": bottleneck,
    "depth": depth,
    "bitfit": lambda backbone: named(backbone, lambda card, name: name.endswith("bias")),
    "norm": norm,
    "head": head,
    "prompt": prompt,
}
