"""2D-to-3D adapters: what networks for single slices lack, a look at the slices above and below.

Behind every block of the image encoder a bottleneck that mixes neighbouring slices at each position: by a
convolution as in MA-SAM (Chen et al., arXiv 2309.08842), or by attention over the slice axis as in Medical
SAM Adapter (Wu et al., arXiv 2304.12620).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from umdseg.adapters.across import AcrossByAttention, AcrossByConv
from umdseg.adapters.base import AdapterOptions
from umdseg.adapters.beside import BesideAdapter, BesideOptions, Place
from umdseg.adapters.blocks import blocks
from umdseg.adapters.bottleneck import narrow
from umdseg.adapters.layers import find
from umdseg.backbones.base import Backbone
from umdseg.backbones.sam2d.groups import Groups
from umdseg.errors import UserError, unknown

KINDS = ("conv", "attention")


@dataclass
class DepthOptions(BesideOptions):
    """Options of depth adapters.

    Attributes:
        kind: conv, over a slice and its two neighbours per block; attention, over all slices of a group.
        slices: consecutive slices that are encoded together, in training patches and in whole scans.
        margin: slices at both ends of a group whose embeddings are not used, because the next group gives
            them with more around them. More make scans slower: by slices / (slices - 2 margin).
        reduction: the bottleneck is so many times narrower than the block.
        width: features of every bottleneck, in place of `reduction`.
        targets: regular expression of names of layers in the blocks that get one; None = the card's.
    """

    name: str = "depth"
    kind: Literal["conv", "attention"] = "conv"
    slices: int = 5
    margin: int = 1
    reduction: int = 16
    width: int | None = None


class Depth(BesideAdapter):
    """Mixing across slices, zero at the start.

    Which slices see each other depends on their numbers alone (`umdseg.backbones.sam2d.groups`), not on
    what is asked first or kept in memory.
    """

    method = "depth"
    needs: ClassVar[tuple[str, ...]] = ("logits", "slices")
    # as for other bottlenecks
    default_lr = 1e-3
    why_not_merged = "single slices cannot hold what lies across them"
    Options: ClassVar[type[AdapterOptions]] = DepthOptions

    def places(self, backbone: Backbone) -> Mapping[str, Place]:
        """After each block of the image encoder."""
        options, groups = cast(DepthOptions, self.options), _groups(backbone)
        if options.kind not in KINDS:
            raise unknown("adapter.kind", options.kind, KINDS)
        if not 0 <= 2 * options.margin < options.slices:
            raise UserError(
                f"of {options.slices} slices with {options.margin} unused at both ends none is left",
                where="adapter.slices / adapter.margin",
                expected="slices above twice the margin, and a margin of 0 or more",
            )
        card = backbone.card
        targets = options.targets or card.adapter_targets
        inside, _ = blocks(backbone.net, find(backbone.net, targets, example=card.adapter_targets))
        if not inside:
            raise UserError(
                f"'{targets}' names no layer of a transformer block",
                where="adapter.targets",
                expected=f"such as {card.adapter_targets}",
            )
        return {
            block.name: Place(block.module, _maker(options, block.width, groups), after=True)
            for block in inside
        }

    def _inject(self, backbone: Backbone, rows: list[int]) -> None:
        options, groups = cast(DepthOptions, self.options), _groups(backbone)
        super()._inject(backbone, rows)
        groups.slices, groups.margin = options.slices, options.margin

    def _select(self, backbone: Backbone, route: str | None) -> None:
        super()._select(backbone, route)
        # the base model answers slice by slice, as it always does
        _groups(backbone).together = route is not None

    def _unload(self, backbone: Backbone) -> None:
        super()._unload(backbone)
        _groups(backbone).reset()


def _maker(options: DepthOptions, features: int, groups: Groups) -> Any:
    width = narrow(options.reduction, options.width, features)
    if options.kind == "conv":
        return lambda: AcrossByConv(features, width, groups)
    return lambda: AcrossByAttention(features, width, groups, options.slices)


def _groups(backbone: Backbone) -> Groups:
    """The backbone's grouping of slices.

    Raises:
        UserError: the model does not see slices one by one.
    """
    groups = getattr(backbone, "groups", None)
    if not isinstance(groups, Groups):
        raise UserError(
            f"adapter 'depth' looks across slices, but model {backbone.card.name} sees volumes",
            where="adapter",
            expected="a model that sees a volume slice by slice (sam_vit_b, medsam, sam2_tiny, ...)",
        )
    return groups
