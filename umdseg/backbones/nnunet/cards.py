"""From plans to a card."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from torch import nn

from umdseg import anatomy
from umdseg.backbones.card import Card, Intensity, Weights
from umdseg.backbones.nnunet.part import Part
from umdseg.backbones.nnunet.predict import network_axes
from umdseg.errors import UserError
from umdseg.vocabulary import MODALITIES, Modality

CITATION = (
    "Isensee F, Jaeger PF, Kohl SAA, et al. nnU-Net: a self-configuring method for deep learning-based "
    "biomedical image segmentation. Nature Methods 18, 203-211 (2021)"
)
# the convolutions of the blocks of encoder and decoder, plain (`convs`) and residual (`blocks`)
BLOCK_CONVOLUTIONS = (
    r"(\d+\.)?(encoder|decoder)\.stages\.(\d+\.)+(convs\.\d+\.conv|blocks\.\d+\.conv[12]\.conv)"
)


def make_card(
    name: str,
    parts: Sequence[Part],
    nets: Sequence[nn.Module],
    weights: Weights,
    base: str,
    citation: str,
    numbering: Mapping[str, int] | None = None,
) -> Card:
    """The card of one or several networks.

    Args:
        name: registered name.
        parts: each network's plans.
        nets: the networks.
        weights: source and terms.
        base: axis codes of images in training.
        citation: of the release, beside nnU-Net's own.
        numbering: published number of each structure; None numbers the parts' channels one after another.

    Raises:
        UserError: an unknown normalisation.
    """
    first = parts[0]
    window = first.window
    steps = [max(part.steps[axis] for part in parts) for axis in range(3)]
    whole = math.lcm(*steps)
    # of one network, the index is the channel of its logits
    structures = _numbered(parts, numbering if len(parts) > 1 else None)
    return Card(
        name=name,
        weights=weights,
        spacing=first.spacing,
        window=window,
        divisor=whole if all(edge % whole == 0 for edge in window) else math.gcd(*window),
        intensity=dict.fromkeys(MODALITIES, _card_scheme(parts)),
        structures=structures,
        groups=anatomy.wholes(structures),
        adapter_targets=BLOCK_CONVOLUTIONS,
        head=_head(nets),
        stem=_stem(nets, first.inputs),
        citation=f"{citation}; {CITATION}" if citation else CITATION,
        orientation=network_axes(first, base),
        trained_on=_modalities(parts),
        prompt_enters="none",
        output="softmax" if len(parts) == 1 and not first.regions else "sigmoid",
        overlap=0.5,
        blending="gaussian",
        # the plans', on which its own volume loop runs
        fixed_window=True,
    )


def scheme_of(part: Part, channel: int) -> Intensity:
    """A channel's normalisation as the card speaks of it.

    nnU-Net normalises before it resamples and takes a z-score's mask from the filled non-zero region; on
    windows, the mask is the voxels above 0.

    Raises:
        UserError: a scheme that nnU-Net itself does not have.
    """
    scheme = str(part.configuration.normalization_schemes[channel])
    if scheme == "CTNormalization":
        facts = part.plans.foreground_intensity_properties_per_channel[str(channel)]
        low, high = float(facts["percentile_00_5"]), float(facts["percentile_99_5"])
        return Intensity("standardise", low, high, mean=float(facts["mean"]), std=float(facts["std"]))
    if scheme == "ZScoreNormalization":
        return Intensity("zscore", masked=bool(part.configuration.use_mask_for_norm[channel]))
    simple = {
        "NoNormalization": Intensity("as_is"),
        "RescaleTo01Normalization": Intensity("percentile", 0.0, 100.0),
        "RGBTo01Normalization": Intensity("window", 0.0, 255.0),
    }
    if scheme not in simple:
        expected = ", ".join(["CTNormalization", "ZScoreNormalization", *simple])
        raise UserError(f"unknown normalisation '{scheme}'", where=part.folder, expected=expected)
    return simple[scheme]


def schemes(parts: Sequence[Part]) -> set[Intensity]:
    """The intensity schemes of all channels of all parts."""
    return {scheme_of(part, channel) for part in parts for channel in range(len(part.channels))}


def _card_scheme(parts: Sequence[Part]) -> Intensity:
    # where networks or channels differ, the backbone scales each by itself
    found = schemes(parts)
    return found.pop() if len(found) == 1 else Intensity("as_is")


def _numbered(parts: Sequence[Part], numbering: Mapping[str, int] | None) -> dict[str, int]:
    structures: dict[str, int] = {}
    offset = 0
    for part in parts:
        for name, channel in part.structures.items():
            if numbering is not None and name not in numbering:
                continue
            structures.setdefault(name, offset + channel if numbering is None else numbering[name])
        offset += part.heads
    return structures


def _stem(nets: Sequence[nn.Module], channels: int) -> str:
    prefix = "0." if len(nets) > 1 else ""
    for name, module in nets[0].named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.in_channels == channels:
            return f"{prefix}{name}"
    raise UserError("the network has no convolution that takes the image")


def _modalities(parts: Sequence[Part]) -> tuple[Modality, ...]:
    seen = {channel for part in parts for channel in part.channels}
    return tuple(name for name in MODALITIES if name in seen)


def _head(nets: Sequence[nn.Module]) -> str:
    """The finest segmentation layer of each network; architectures other than nnU-Net's U-Nets have none."""
    names = []
    for number, net in enumerate(nets):
        prefix = f"{number}." if len(nets) > 1 else ""
        last = [name for name, _ in net.named_modules() if re.fullmatch(r"decoder\.seg_layers\.\d+", name)]
        names += [re.escape(f"{prefix}{name}") for name in last[-1:]]
    return "|".join(names)


def describe(parts: Sequence[Part], checked: bool) -> str:
    """What is not verified, and what of the folder is not used."""
    notes = [] if checked else ["hash not verified"]
    for part in parts:
        where = part.folder.parent.name if len(parts) > 1 else ""
        tag = f"{re.sub(r'_.*', '', where)}: " if where else ""
        if part.unknown:
            near = [f"{label} (near {hit})" if hit else label for label, hit in part.unknown.items()]
            notes.append(f"{tag}labels without a structure of that name: {', '.join(near)}")
        if part.flat:
            notes.append(f"{tag}2-D: sees slices along the first axis one by one; windows are one slice")
        if part.previous:
            notes.append(
                f"{tag}a cascade after {part.previous[0].folder.name}: whole scans only, no training"
            )
        if not part.trainer_found:
            notes.append(f"{tag}the trainer is not installed: network built from the plans")
    return "; ".join(notes)
