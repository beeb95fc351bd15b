"""nnU-Net behind the contract: one network, or several whose classes together are the model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from umdseg.backbones.base import Backbone, Features
from umdseg.backbones.card import Card
from umdseg.backbones.nnunet.cards import scheme_of, schemes
from umdseg.backbones.nnunet.part import Part
from umdseg.backbones.nnunet.session import NnunetSession
from umdseg.backbones.nnunet.window import decode_window, encode_window
from umdseg.data.geometry import Volume, resample
from umdseg.data.scaling import scale_intensity
from umdseg.errors import UserError
from umdseg.vocabulary import Modality, Origin, Prompt

# what lies beyond a further channel's field of view: air in HU, no uptake
_BEYOND = {"ct": -1024.0}


class Nnunet(Backbone):
    """Networks trained by nnU-Net v2.

    Windows (training, adapters) go through `encode` and `decode` in the network's own axes: the card's
    orientation is that of the plans; 2-D networks see the slices along its first axis one by one. Whole scans
    go through a session of their own, as `nnUNetPredictor`; cascades take whole scans only.

    Attributes:
        parts: what is known of each network.
        base: axis codes of (x, y, z) that the card assumes.
        forced: the same where images are to be turned first, None where nnU-Net takes them as they are.
        mirroring: average over mirrored inputs.
        overwrite: what a later network claims, earlier ones lose (TotalSegmentator's way of merging).
    """

    def __init__(
        self,
        card: Card,
        parts: Sequence[Part],
        nets: Sequence[nn.Module],
        *,
        forced: str | None = None,
        mirroring: bool = True,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        self.card, self.parts, self.new_structures = card, list(parts), {}
        self.net = nets[0] if len(nets) == 1 else nn.ModuleList(nets)
        self.base, self.forced = forced or "RAS", forced
        self.mirroring, self.overwrite = mirroring, overwrite

    @property
    def networks(self) -> list[nn.Module]:
        """One network per part, as adapters have left them."""
        if len(self.parts) == 1:
            return [self.net]
        # an adapter may have wrapped the list; its wrapper passes attributes through
        return [cast(nn.Module, getattr(self.net, str(number))) for number in range(len(self.parts))]

    @property
    def takes(self) -> tuple[Modality, ...]:
        """The channels' modalities, where there are several channels.

        Raises:
            UserError: neither dataset.json nor the options tell them apart.
        """
        channels = self.parts[0].channels
        told = tuple(name for name in channels if name is not None)
        if len(channels) > 1 and len(set(told)) < len(channels):
            raise UserError(
                f"dataset.json does not tell the modalities of the {len(channels)} input channels",
                where=self.parts[0].folder,
                expected="model.channels=[ct,pet], in the order of training",
            )
        return told if len(channels) > 1 else ()

    @property
    def training_window(self) -> tuple[int, int, int]:
        """(X, Y, Z) voxels of a training patch: the card's window.

        Raises:
            UserError: a cascade, which needs the result of the stage before on the whole scan.
        """
        self._check_stages()
        return self.card.window

    def encode(self, image: torch.Tensor, affine: torch.Tensor | None = None) -> Features:
        """Encode windows (B, channels, X, Y, Z); maps are the skip connections of each part in turn.

        Raises:
            UserError: a window that does not fit; a cascade.
        """
        self._check_window(image)
        if affine is None:
            affine = torch.diag(torch.tensor([*(self.card.spacing or (1.0,) * 3), 1.0], dtype=torch.float64))
            affine = affine.expand(image.shape[0], 4, 4)
        maps: list[torch.Tensor] = []
        counts = []
        for part, net in zip(self.parts, self.networks, strict=True):
            skips = encode_window(net, self._scaled(image, part), part)
            maps += skips
            counts.append(len(skips))
        shape = (int(image.shape[2]), int(image.shape[3]), int(image.shape[4]))
        return Features(maps, affine, shape, {"counts": counts})

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (B, K, X, Y, Z): the log odds of a class within its own network, or a region's logit."""
        self.check_prompts(prompts)
        places = [self.places(prompt.structure) for prompt in prompts]
        heads = {n: self.heads(features, n) for n in sorted({n for group in places for n in group})}
        planes = []
        for group in places:
            found = [_log_odds(heads[n], channels, self.parts[n]) for n, channels in group.items()]
            planes.append(torch.stack(found).amax(dim=0))
        return torch.stack(planes, dim=1)

    def heads(self, features: Features, number: int) -> torch.Tensor:
        """All logits (B, C, X, Y, Z) of one part, kept in the features."""
        key = f"heads{number}"
        if key not in features.state:
            counts = features.state["counts"]
            first = sum(counts[:number])
            maps = features.maps[first : first + counts[number]]
            features.state[key] = decode_window(self.networks[number], maps, self.parts[number])
        return cast(torch.Tensor, features.state[key])

    def session(self, volume: Volume, origin: Origin | str, *, overlap: float | None, precision: str) -> Any:
        """A session on one scan, for networks that take one.

        Raises:
            UserError: the network takes several scans of one person.
        """
        if self.takes:
            raise UserError(
                f"model {self.card.name} takes {' and '.join(self.takes)} of one person together; "
                f"only {Origin.of(origin).modality} was given",
                expected="backbone.session_of({modality: volume, ...}) with all of them",
            )
        return NnunetSession(self, [volume], origin, overlap, precision)

    def session_of(
        self, volumes: Mapping[str, Volume], *, overlap: float | None = None, precision: str = "auto"
    ) -> NnunetSession:
        """A session on several scans of one person in one patient space.

        Args:
            volumes: modality -> scan; all are brought onto the grid of the network's first channel.
            overlap: share by which windows overlap; None = as nnU-Net does.
            precision: auto, fp32 or bf16.

        Raises:
            UserError: a channel's modality is missing or not known, one is given that is not wanted, or the
                network takes one scan at a time.
        """
        names = self.takes
        if not names or set(volumes) != set(names):
            raise UserError(
                f"model {self.card.name} was given {' and '.join(volumes) or 'nothing'}",
                expected=f"exactly {' and '.join(names)} of one person" if names else "one scan at a time",
            )
        first = volumes[names[0]]
        channels = [first, *(_onto(volumes[name], first, name) for name in names[1:])]
        return NnunetSession(self, channels, "+".join(names), overlap, precision)

    def changed(self, number: int) -> bool:
        """Whether a part is no longer what its folder says: adapted, or with an adapter merged into it."""
        first = next(iter(self.parts[number].states), None)
        if self.adapter is not None or first is None:
            return self.adapter is not None
        own = self.networks[number].state_dict()
        return any(not torch.equal(own[key].cpu(), value.to(own[key].dtype)) for key, value in first.items())

    def places(self, structure: str) -> dict[int, tuple[int, ...]]:
        """Which channels of which parts hold a structure, or a group's members.

        Raises:
            UserError: the model has no such structure (with the nearest name).
        """
        found: dict[int, tuple[int, ...]] = {}
        for member in self.card.members(structure):
            self.card.index(member)
            number = next(n for n, part in enumerate(self.parts) if member in part.structures)
            found[number] = (*found.get(number, ()), self.parts[number].structures[member])
        return found

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Refuse prompts other than by class.

        Raises:
            UserError: a prompt of another kind, or an unknown structure.
        """
        for prompt in prompts:
            if prompt.kind not in self.card.prompts:
                raise UserError(
                    f"model {self.card.name} takes no '{prompt.kind}' prompts", expected="auto prompts"
                )
            self.places(prompt.structure)

    def add_structures(self, structures: Sequence[str]) -> dict[str, int]:
        """Known structures only: the classes of an nnU-Net are fixed.

        Raises:
            UserError: one of them is new.
        """
        new = [name for name in structures if not self.knows(name)]
        if new:
            raise UserError(
                f"model {self.card.name} cannot learn new structures ({', '.join(new)})",
                expected="structures it was trained on, or a model with free class rows such as vista3d",
            )
        return {name: self.index(name) for name in structures if name not in self.card.groups}

    def _check_stages(self) -> None:
        if any(part.previous for part in self.parts):
            raise UserError(
                f"model {self.card.name} is a cascade: on windows it lacks the result of the stage before",
                where=self.parts[0].folder,
                expected="whole scans (umdseg evaluate); to train, the folder of a network of one stage",
            )

    def _check_window(self, image: torch.Tensor) -> None:
        self._check_stages()
        edges, first = image.shape[2:], self.parts[0]
        steps = tuple(max(part.steps[axis] for part in self.parts) for axis in range(3))
        if image.shape[1] != len(first.channels) or any(e % s for e, s in zip(edges, steps, strict=True)):
            raise UserError(
                f"a window of {image.shape[1]} channels and {tuple(edges)} voxels does not fit "
                f"model {self.card.name}",
                expected=f"{len(first.channels)} channels, edges that are multiples of {steps}",
            )
        grids = {(*part.spacing, *part.plans.transpose_forward, part.flat) for part in self.parts}
        if len(grids) > 1:
            raise UserError(
                f"the {len(self.parts)} networks of model {self.card.name} work at different spacings",
                expected="model.folder= of one of them, to train on windows",
            )

    def _scaled(self, image: torch.Tensor, part: Part) -> torch.Tensor:
        if len(schemes(self.parts)) == 1:
            return image
        own = [scheme_of(part, channel) for channel in range(len(part.channels))]
        if any(scheme.kind not in ("standardise", "window", "as_is") for scheme in own):
            raise UserError(
                f"the channels of model {self.card.name} are scaled by whole scans, each in its own way",
                expected="whole scans (session_of), or a model whose channels are scaled alike",
            )
        scaled = [scale_intensity(image[:, c : c + 1], scheme) for c, scheme in enumerate(own)]
        return torch.cat(scaled, dim=1)


class SingleNnunet(Nnunet):
    """One network: all its logits are the dense features."""

    def dense(self, features: Features) -> torch.Tensor:
        """(B, C, X, Y, Z) logits of all classes, background first; of regions, where labels are regions."""
        return self.heads(features, 0)

    def class_vectors(self, structures: Sequence[str]) -> torch.Tensor:
        """(K, C) picks regions out of `dense`; of competing classes, the channel without its rivals."""
        rows = torch.zeros(len(structures), self.parts[0].heads)
        for row, name in zip(rows, structures, strict=True):
            row[self.index(name)] = 1
        return rows.to(next(self.net.parameters()).device)


def _log_odds(heads: torch.Tensor, channels: Sequence[int], part: Part) -> torch.Tensor:
    """(B, X, Y, Z)."""
    own = heads[:, list(channels)]
    if part.regions:
        return own.amax(dim=1)
    rest = [channel for channel in range(heads.shape[1]) if channel not in channels]
    return torch.logsumexp(own, 1) - torch.logsumexp(heads[:, rest], 1)


def _onto(volume: Volume, first: Volume, modality: str) -> Volume:
    values = torch.from_numpy(volume.array.astype("float32"))[None]
    moved = resample(values, volume.grid, first.grid, outside=_BEYOND.get(modality, 0.0))
    return Volume(moved[0].numpy(), first.grid)
