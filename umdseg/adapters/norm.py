"""Tuning of normalisation layers: only their scales and shifts train (Frankle et al., arXiv 2003.00152)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import nn

from umdseg.adapters.base import AdapterOptions
from umdseg.adapters.chosen import ChosenAdapter, ChosenOptions, within
from umdseg.adapters.layers import layers
from umdseg.backbones.base import Backbone

_TORCH = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
# networks bring layer norms of their own (SAM-Med3D's LayerNorm3d)
_NAMED = re.compile(r"(Batch|Instance|Group|Layer|RMS)_?Norm", re.IGNORECASE)


@dataclass
class NormOptions(ChosenOptions):
    """Options of norm tuning.

    Attributes:
        targets: regular expression of names of normalisation layers; None = all.
    """

    name: str = "norm"


class NormTuning(ChosenAdapter):
    """Scales and shifts of all normalisation layers; running statistics stay the base's."""

    method = "norm"
    # few numbers, each for a whole channel; 2e-3 hardly moves them in hundreds of steps
    # (experiments/anatomy_methods)
    default_lr = 1e-2
    Options: ClassVar[type[AdapterOptions]] = NormOptions

    def chosen(self, backbone: Backbone) -> Sequence[str]:
        """The own parameters of every normalisation layer."""
        names = within(backbone.net, cast(NormOptions, self.options).targets or ".*")
        affine = {
            id(parameter)
            for layer in layers(backbone.net)
            if is_norm(layer.module)
            for parameter in layer.module.parameters(recurse=False)
        }
        own = dict(backbone.net.named_parameters())
        found = [name for name in names if id(own[name]) in affine]
        if not found:
            what = "normalisation layers with scales to train"
            raise self.nothing(backbone, what, "another pattern, or another method")
        return found


def is_norm(module: nn.Module) -> bool:
    """Whether a layer normalises: one of torch's classes, or called so."""
    return isinstance(module, _TORCH) or bool(_NAMED.search(type(module).__name__))
