"""What one pass of a model costs: FLOPs and bytes, counted without computing anything."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from umdseg.backbones.base import Backbone
from umdseg.tasks.loss import dice_ce
from umdseg.vocabulary import Prompt

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Convolution:
    """One convolution as the network calls it.

    Attributes:
        image: shape of its input.
        weight: shape of its weight.
        rest: stride, padding, dilation, transposed, output padding, groups.
        work: multiplications.
    """

    image: Shape
    weight: Shape
    rest: tuple[Any, ...]
    work: int


@dataclass(frozen=True)
class Cost:
    """One pass.

    Attributes:
        flops: multiplications and additions of convolutions and matrix products.
        peak_bytes: most bytes of tensors alive at once, without the model's own.
        heaviest: the convolution with most FLOPs; None where there is none.
    """

    flops: int
    peak_bytes: int
    heaviest: Convolution | None


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts bytes of living tensors, on the meta device as on any other."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.heaviest: Convolution | None = None
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            image, weight, _, *rest = args
            work = out.numel() * weight[0].numel()
            if self.heaviest is None or work > self.heaviest.work:
                self.heaviest = Convolution(tuple(image.shape), tuple(weight.shape), tuple(rest), work)
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        # a storage's Python object lives as long as the storage, so its end tells of freed memory
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def training_cost(backbone: Backbone, names: list[str], batch: int) -> Cost:
    """One fitting step by class: forward, loss, backward."""

    def step() -> None:
        logits = _forward(backbone, names, batch)
        dice_ce(logits, torch.zeros_like(logits, dtype=torch.bool), 1.0).backward()  # type: ignore[no-untyped-call]

    return _counted(step)


def inference_cost(backbone: Backbone, names: list[str]) -> Cost:
    """One window by class, without gradients; only F where the last layer is linear."""

    def step() -> None:
        with torch.no_grad():
            if not backbone.has_dense:
                _forward(backbone, names, 1)
                return
            backbone.dense(backbone.encode(_window(backbone, 1)))

    return _counted(step)


def throughput(
    call: Convolution, device: torch.device, autocast: Callable[[], AbstractContextManager[Any]]
) -> float:
    """FLOPs per second of the model's heaviest convolution on this machine, measured in under a second."""
    # so many voxels that a call takes milliseconds on a laptop and still fills a GPU
    edge = 128 if device.type == "cuda" else 48
    image = torch.rand(1, call.image[1], *(min(edge, n) for n in call.image[2:]), device=device)
    weight = torch.rand(call.weight, device=device)

    def once() -> None:
        with torch.no_grad(), autocast():
            torch.ops.aten.convolution.default(image, weight, None, *call.rest)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with FlopCounterMode(display=False) as counter:
        once()
    start, times = time.perf_counter(), list[float]()
    while len(times) < 3 or (time.perf_counter() - start < 0.3 and len(times) < 50):
        before = time.perf_counter()
        once()
        times.append(time.perf_counter() - before)
    return float(counter.get_total_flops() / sorted(times)[len(times) // 2])


def _window(backbone: Backbone, batch: int) -> torch.Tensor:
    return torch.empty(batch, 1, *backbone.training_window, device="meta")


def _forward(backbone: Backbone, names: list[str], batch: int) -> torch.Tensor:
    features = backbone.encode(_window(backbone, batch))
    if "auto" in backbone.card.prompts:
        return backbone.decode(features, [Prompt(name) for name in names])
    # any click will do: what it costs does not depend on where it is
    return backbone.decode(features, [Prompt("", "point", ((0.0, 0.0, 0.0),), (1,))])


def _counted(step: Callable[[], None]) -> Cost:
    with FlopCounterMode(display=False) as counter, Ledger() as ledger:
        step()
    return Cost(counter.get_total_flops(), ledger.peak, ledger.heaviest)
