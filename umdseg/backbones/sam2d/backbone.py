"""Networks for single images behind the contract for volumes; SAM and MedSAM (`transformers.SamModel`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from umdseg.backbones.base import BACKGROUND, Backbone, Features
from umdseg.backbones.card import Card
from umdseg.backbones.sam2d.groups import Groups
from umdseg.backbones.sam2d.names import sam_names
from umdseg.backbones.sam2d.options import Sam2dOptions
from umdseg.backbones.sam2d.pictures import Layout, Style
from umdseg.backbones.sam2d.prompts import Ask, Placed, place
from umdseg.backbones.sam2d.session import SliceSession
from umdseg.backbones.sam2d.stack import Stack, pictures, whole
from umdseg.backbones.sam2d.together import FusedSliceSession
from umdseg.backbones.sam2d.walk import Answers, walk
from umdseg.data.geometry import Volume
from umdseg.vocabulary import Modality, Origin, Prompt


class Sam2d(Backbone):
    """One embedding per slice; every prompt runs the prompt encoder and the mask decoder only.

    Windows are stacks of axial slices in LPS order, a slice (X, Y) being the picture with X to the right and
    Y downwards. `encode` takes values from 0 to 255 and cuts them to whole numbers, as pictures hold them.

    Args:
        card: the facts of the weights.
        net: `transformers.SamModel`.
        style: what is done to slices (see `umdseg.backbones.sam2d.pictures`).
        options: of the model.

    Attributes:
        groups: which slices are encoded together (by themselves, without an adapter that looks across).
    """

    def __init__(self, card: Card, net: nn.Module, style: Style, options: Sam2dOptions) -> None:
        super().__init__()
        self.card, self.net, self.style, self.options = card, net, style, options
        self.new_structures, self.groups = {}, Groups()
        sizes: Any = net.config
        self.edge = int(sizes.prompt_encoder_config.image_size)

    @property
    def training_window(self) -> tuple[int, int, int]:
        """The card's window, with as many slices as an adapter looks across."""
        x, y, z = self.card.window
        return x, y, max(z, self.groups.slices)

    def knows(self, structure: str) -> bool:
        """Anything can be pointed at; there are no classes."""
        del structure
        return True

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Names of facebookresearch/segment-anything -> transformers' (see `sam_names`)."""
        return sam_names(state)

    def layout(self, size: tuple[int, int], spacing: tuple[float, float]) -> Layout:
        """How slices of (rows, columns) pixels meet the network's input."""
        return Layout.of(self.style, self.edge, size, spacing)

    def encode(self, image: torch.Tensor, affine: torch.Tensor | None = None) -> Features:
        """Encode stacks of axial slices (B, 1, X, Y, Z) with values from 0 to 255.

        Without `affine`, voxel 0 is at 0 mm, voxels are 1 mm and axes are LPS.
        """
        count, _, columns, rows, slices = image.shape
        if affine is None:
            affine = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
            affine = affine.expand(count, 4, 4)
        numbers = whole(image[:, 0])
        made = []
        for one, matrix in zip(numbers, affine, strict=True):
            layout = self.layout((rows, columns), _spacing(matrix))
            shown = torch.cat([pictures(one, z, self.options.channels) for z in range(slices)])
            made.append(layout.pixels(shown))
        maps = self.embed_stacks(torch.stack(made).to(image.device))
        # (B, Z, C, h, w) -> (B, C, w, h, Z)
        return Features([m.permute(0, 2, 4, 3, 1) for m in maps], affine, (columns, rows, slices))

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (B, K, X, Y, Z), each prompt by itself, taken from slice to slice by `walk`."""
        self.check_prompts(prompts)
        samples = [features.sample(i) for i in range(features.maps[0].shape[0])]
        return torch.stack([torch.stack([self._walked(one, p) for p in prompts]) for one in samples])

    def placed(self, prompt: Prompt, affine: torch.Tensor, shape: tuple[int, int, int]) -> Placed:
        """A prompt on a stack of slices, without what the model cannot take."""
        if prompt.kind != "box":
            prompt = replace(prompt, box=None)
        elif "clicks" not in self.card.prompts:
            prompt = replace(prompt, points=(), signs=())
        return place(prompt, affine, shape)

    def session(self, volume: Volume, origin: Origin | str, *, overlap: float | None, precision: str) -> Any:
        """Slices of the whole scan, in one or more planes."""
        del overlap
        return SliceSession(self, volume, origin, precision)

    def fused_session(
        self, fused: Any, volumes: Mapping[Modality, Volume], *, origin: Origin | str, precision: str
    ) -> Any:
        """Slices of the whole leading scan, with what the fusion makes of the others."""
        return FusedSliceSession(self, fused, volumes, origin, precision)

    def embed_stacks(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings of whole stacks (B, Z, 3, edge, edge), each (B, Z, C, h, w)."""
        if not self.groups.together:
            return _stacked(self.embed(pixels.flatten(0, 1)), pixels)
        found = []
        for group in self.groups.of(pixels.shape[1]):
            kept = slice(group.first - group.start, group.last - group.start)
            maps = self.embed_group(pixels[:, group.start : group.stop])
            found.append([m[:, kept] for m in maps])
        return [torch.cat(parts, dim=1) for parts in zip(*found, strict=True)]

    def embed_group(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings of slices that see each other (B, Z, 3, edge, edge), each (B, Z, C, h, w)."""
        with self.groups.encoding(pixels.shape[1]):
            maps = self.embed(pixels.flatten(0, 1))
        return _stacked(maps, pixels)

    def embed(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings of pictures (N, 3, edge, edge), finest first, each (N, C, h, w)."""
        return [self._part("vision_encoder")(pixels).last_hidden_state]

    def ask(self, embedding: Sequence[torch.Tensor], layout: Layout, ask: Ask) -> torch.Tensor:
        """Low-resolution logits (h, w) of one slice.

        A single click is ambiguous: of the three masks that the network offers then, the one it rates highest
        counts (as the authors recommend); any other prompt gets its one mask.

        Args:
            embedding: of the slice, each map (1, C, h, w).
            layout: of the slice.
            ask: the prompt.
        """
        device = embedding[-1].device
        # positions in bfloat16 would be off by pixels
        with torch.autocast(device.type, enabled=False):
            sparse, dense = self._part("prompt_encoder")(**_tensors(layout, ask, device))
            positions = self._part("get_image_wide_positional_embeddings")()
        several = is_ambiguous(ask)
        masks, quality = self._part("mask_decoder")(
            image_embeddings=embedding[-1],
            image_positional_embeddings=positions,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
        )
        offered: torch.Tensor = masks[0, 0]
        return offered[int(quality[0, 0].argmax()) if several else 0]

    def answers(self, stack: Stack, placed: Placed) -> Answers:
        """(slice, low-resolution logits) of a prompt on a scan; what comes twice counts by its maximum."""
        return walk(
            lambda z, ask: self.ask(stack.embedding(z), stack.layout, ask),
            placed,
            stack.layout,
            self.options.propagate,
        )

    def _walked(self, one: Features, prompt: Prompt) -> torch.Tensor:
        columns, rows, slices = one.shape
        layout = self.layout((rows, columns), _spacing(one.affine[0]))

        def ask(z: int, question: Ask) -> torch.Tensor:
            return self.ask([m[..., z].transpose(2, 3) for m in one.maps], layout, question)

        empty = torch.full((columns, rows), BACKGROUND, device=one.maps[0].device)
        found: dict[int, torch.Tensor] = {}
        placed = self.placed(prompt, one.affine[0], one.shape)
        for z, low in walk(ask, placed, layout, self.options.propagate):
            # the maximum comes before enlarging, as in sessions: the two do not commute
            found[z] = torch.maximum(found[z], low) if z in found else low
        drawn = {z: layout.enlarge(low[None])[0].T for z, low in found.items()}
        return torch.stack([drawn.get(z, empty) for z in range(slices)], dim=-1)

    def _part(self, name: str) -> Any:
        # an adapter may have wrapped the network; its wrapper passes attributes through
        return getattr(self.net, name)


def is_ambiguous(ask: Ask) -> bool:
    """Whether nothing but one click says what is meant."""
    return len(ask.signs) == 1 and ask.box is None and ask.low is None


def _stacked(maps: Sequence[torch.Tensor], pixels: torch.Tensor) -> list[torch.Tensor]:
    """Maps (B * Z, C, h, w) of pictures (B, Z, ...) -> (B, Z, C, h, w)."""
    return [m.reshape(*pixels.shape[:2], *m.shape[1:]) for m in maps]


def _tensors(layout: Layout, ask: Ask, device: torch.device) -> dict[str, torch.Tensor | None]:
    """What transformers' prompt encoder of SAM takes."""
    points = labels = boxes = masks = None
    if len(ask.signs):
        points = layout.to_input(ask.points)[None, None].to(device)
        labels = torch.tensor(ask.signs, device=device)[None, None]
    if ask.box is not None:
        boxes = layout.to_input(np.array(ask.box).reshape(2, 2)).reshape(1, 1, 4).to(device)
    if ask.low is not None:
        masks = ask.low.float()[None, None].to(device)
    return {"input_points": points, "input_labels": labels, "input_boxes": boxes, "input_masks": masks}


def _spacing(affine: torch.Tensor) -> tuple[float, float]:
    """Millimetres between rows and between columns of axial slices."""
    x, y, _ = torch.linalg.norm(affine[:3, :3].to("cpu", torch.float64), dim=0).tolist()
    return float(y), float(x)
