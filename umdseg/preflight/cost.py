"""What one pass of a model costs: FLOPs and bytes, counted without computing anything."""

from __future__ import annotations

import math
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
_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)
# rows of a measured matrix product: milliseconds on a laptop, enough to fill a GPU
_ROWS = {"cuda": 8192, "cpu": 1024}


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
class Product:
    """One matrix product as the network calls it: (rows, inner) times (inner, columns)."""

    rows: int
    inner: int
    columns: int

    @property
    def work(self) -> int:
        """Multiplications."""
        return self.rows * self.inner * self.columns


@dataclass(frozen=True)
class Cost:
    """One pass.

    Attributes:
        flops: multiplications and additions of convolutions and matrix products.
        peak_bytes: most bytes of tensors alive at once, without the model's own.
        heaviest: the convolution with most FLOPs; None where there is none.
        products: those of the FLOPs that are matrix products and attention.
        product: the matrix product with most FLOPs; None where there is none.
        made_bytes: bytes of all tensors made, which for normalisation and softmax tell the time.
    """

    flops: int
    peak_bytes: int
    heaviest: Convolution | None
    products: int = 0
    product: Product | None = None
    made_bytes: int = 0


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts bytes of living tensors, on the meta device as on any other."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.made = 0
        self.heaviest: Convolution | None = None
        self.product: Product | None = None
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            image, weight, _, *rest = args
            work = out.numel() * weight[0].numel()
            if self.heaviest is None or work > self.heaviest.work:
                self.heaviest = Convolution(tuple(image.shape), tuple(weight.shape), tuple(rest), work)
        elif func in _PRODUCTS:
            one, other = args[-2:]
            found = Product(math.prod(one.shape[:-1]), one.shape[-1], other.shape[-1])
            if self.product is None or found.work > self.product.work:
                self.product = found
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
        self.made += size
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

    return counted(step)


def inference_cost(backbone: Backbone, names: list[str]) -> Cost:
    """One window by class, without gradients; only F where the last layer is linear."""

    def step() -> None:
        with torch.no_grad():
            if not backbone.has_dense:
                _forward(backbone, names, 1)
                return
            backbone.dense(backbone.encode(_window(backbone, 1)))

    return counted(step)


def throughput(
    call: Convolution, device: torch.device, autocast: Callable[[], AbstractContextManager[Any]]
) -> float:
    """FLOPs per second of the model's heaviest convolution on this machine, measured in under a second."""
    # so many voxels that a call takes milliseconds on a laptop and still fills a GPU
    edge = 128 if device.type == "cuda" else 48
    image = torch.rand(1, call.image[1], *(min(edge, n) for n in call.image[2:]), device=device)
    weight = torch.rand(call.weight, device=device)

    return _pace(
        lambda: torch.ops.aten.convolution.default(image, weight, None, *call.rest), device, autocast
    )


def product_throughput(
    call: Product, device: torch.device, autocast: Callable[[], AbstractContextManager[Any]]
) -> float:
    """FLOPs per second of the model's heaviest matrix product on this machine, as `throughput`."""
    rows = min(call.rows, _ROWS["cuda" if device.type == "cuda" else "cpu"])
    one = torch.rand(rows, call.inner, device=device)
    # attention multiplies by as many columns as there are tokens
    other = torch.rand(call.inner, min(call.columns, 4 * _ROWS["cpu"]), device=device)
    return _pace(lambda: torch.mm(one, other), device, autocast)


def writing(device: torch.device) -> float:
    """Bytes of fresh tensors per second that this machine makes by adding two."""
    one = torch.rand(1 << (26 if device.type == "cuda" else 23), device=device)
    times = list[float]()
    for _ in range(5):
        before = time.perf_counter()
        torch.add(one, one)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - before)
    return float(one.nbytes / sorted(times)[len(times) // 2])


def _pace(
    call: Callable[[], torch.Tensor],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> float:
    def once() -> None:
        with torch.no_grad(), autocast():
            call()
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
    return torch.empty(batch, max(len(backbone.takes), 1), *backbone.training_window, device="meta")


def _forward(backbone: Backbone, names: list[str], batch: int) -> torch.Tensor:
    features = backbone.encode(_window(backbone, batch))
    if "auto" in backbone.card.prompts:
        return backbone.decode(features, [Prompt(name) for name in names])
    # any click will do: what it costs does not depend on where it is
    return backbone.decode(features, [Prompt("", "point", ((0.0, 0.0, 0.0),), (1,))])


def counted(step: Callable[[], object]) -> Cost:
    """What a call costs, on whatever device its tensors are."""
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter, Ledger() as ledger:
        step()
    by_kind = counter.get_flop_counts().get("Global", {})
    convolutions = sum(n for kind, n in by_kind.items() if "conv" in str(kind))
    total = counter.get_total_flops()
    return Cost(total, ledger.peak, ledger.heaviest, total - convolutions, ledger.product, ledger.made)


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """FLOPs of attention on CPUs, which torch's counter leaves out: two products per head and token."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default: _attention}
