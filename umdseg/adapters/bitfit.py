"""BitFit (Ben Zaken et al., arXiv 2106.10199): only biases train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from umdseg.adapters.base import AdapterOptions
from umdseg.adapters.chosen import ChosenAdapter, ChosenOptions, within
from umdseg.backbones.base import Backbone


@dataclass
class BitFitOptions(ChosenOptions):
    """Options of BitFit.

    Attributes:
        targets: regular expression of names of modules whose biases train; None = all biases.
    """

    name: str = "bitfit"


class BitFit(ChosenAdapter):
    """All biases, those of normalisation layers among them."""

    method = "bitfit"
    # biases are few and each moves a whole channel at once; the paper's best rates are ten times those of
    # full tuning, and so are ours (experiments/anatomy_methods)
    default_lr = 1e-2
    Options: ClassVar[type[AdapterOptions]] = BitFitOptions

    def chosen(self, backbone: Backbone) -> Sequence[str]:
        """Every parameter called bias, or something_bias as in torch's attention."""
        names = within(backbone.net, cast(BitFitOptions, self.options).targets or ".*")
        found = [name for name in names if name.rpartition(".")[2].endswith("bias")]
        if not found:
            raise self.nothing(backbone, "biases", "another pattern, or another method")
        return found
