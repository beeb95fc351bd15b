"""The plan of models that look at the values of a window: one small window tried, and scaled up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from umdseg.backbones.base import Backbone
from umdseg.config.schema import Settings
from umdseg.preflight.cost import Cost, counted
from umdseg.preflight.plans.base import Step, WindowPlan
from umdseg.vocabulary import Prompt

# edge of the window that is tried, as near as the divisor allows
_EDGE = 32
# backward of the activations and of the weights, beside forward
_WITH_GRADIENT = 3


class TriedPlan(WindowPlan):
    """Work and memory of convolutions grow with the voxels of a window; attention grows faster.

    Attributes:
        basis: says so in the table.
    """

    def __init__(self, settings: Settings, backbone: Backbone, names: Sequence[str]) -> None:
        # not WindowPlan's: that runs the network on tensors without values
        super(WindowPlan, self).__init__(settings, backbone, names)
        edges = [_edge(edge, self.card.divisor) for edge in self.card.window]
        real = _filled(backbone)
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, self.channels, *edges, generator=generator)
        prompts = [Prompt(name) for name in names]
        with torch.no_grad():
            cost = counted(lambda: real.decode(real.encode(image), prompts))
        ratio = math.prod(self.card.window) / math.prod(edges)
        self.steps = [Step("window", "windows", _scaled(cost, ratio))]
        shown = " x ".join(map(str, edges))
        self.basis = f" (tried on {shown} voxels and scaled up)"

    def training(self, batch: int) -> Cost:
        """By rule of thumb: nobody can say what is kept for the backward pass without running it."""
        one = self.steps[0].cost
        return _scaled(one, _WITH_GRADIENT * batch)


def _edge(edge: int, divisor: int) -> int:
    return min(edge, divisor * math.ceil(_EDGE / divisor))


def _filled(backbone: Backbone) -> Backbone:
    """The model on the CPU with small random numbers in place of its weights."""
    real = backbone.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*real.parameters(), *real.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(0.01 * torch.rand(tensor.shape, generator=generator))
            else:
                tensor.zero_()
    return real.eval()


def _scaled(cost: Cost, ratio: float) -> Cost:
    return Cost(
        round(cost.flops * ratio),
        round(cost.peak_bytes * ratio),
        cost.heaviest,
        round(cost.products * ratio),
        cost.product,
        round(cost.made_bytes * ratio),
    )
