"""(IA)^3 (Liu et al., arXiv 2205.05638): one learned factor per channel, through peft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from umdseg.adapters.base import AdapterOptions
from umdseg.adapters.layers import Layer, pattern_of
from umdseg.adapters.peft import PeftAdapter, PeftOptions, class_table
from umdseg.backbones.base import Backbone


@dataclass
class Ia3Options(PeftOptions):
    """Options of (IA)^3."""

    name: str = "ia3"


class Ia3(PeftAdapter):
    """Factors, 1 at the start: on the outputs of linear layers, on the inputs of convolutions.

    The instance norm behind a convolution would take a factor on its output away again (its gradient is 0 but
    for the norm's epsilon), one on an input channel changes the mixture. Trained are out numbers of a linear
    layer and in of a convolution.

    Plain peft reads the saved factors; rows of learned classes lie in the same file, but peft's configuration
    of this method has no word for them.
    """

    method = "ia3"
    # the paper's 3e-3 is for thousands of steps; in hundreds it hardly moves (experiments/anatomy_methods)
    default_lr = 2e-2
    Options: ClassVar[type[AdapterOptions]] = Ia3Options
    kinds: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear, nn.Conv2d, nn.Conv3d)

    def config(self, backbone: Backbone, rows: list[int], targets: list[Layer], pattern: str) -> Any:
        """A `peft.IA3Config`."""
        from peft import IA3Config

        convolutions = [layer for layer in targets if not isinstance(layer.module, nn.Linear)]
        inputs: str | list[str] = []
        if convolutions:
            inputs = pattern if len(convolutions) == len(targets) else _exactly(convolutions)
        config: Any = IA3Config(target_modules=pattern, feedforward_modules=inputs)
        # read by peft for every method, though only LoRA's configuration declares it
        config.trainable_token_indices = class_table(backbone, rows)
        return config


def _exactly(layers: list[Layer]) -> str:
    return pattern_of(nn.Module(), layers, "")
