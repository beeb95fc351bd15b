"""SAM 2 and MedSAM2 (`transformers.Sam2VideoModel`): a volume is a video whose frames are its slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from umdseg.backbones.sam2d.backbone import Sam2d, is_ambiguous
from umdseg.backbones.sam2d.names2 import sam2_names
from umdseg.backbones.sam2d.pictures import Layout
from umdseg.backbones.sam2d.prompts import Ask, Placed
from umdseg.backbones.sam2d.stack import Stack
from umdseg.backbones.sam2d.video import propagate
from umdseg.backbones.sam2d.walk import Answers

# what the network says of frames it believes the object is not on (transformers' NO_OBJ_SCORE)
ABSENT = -1024.0
# signs of a box's two corners, which SAM 2 takes as clicks
CORNERS = (2, 3)


class Sam2(Sam2d):
    """Scans go through the network's memory; training patches slice by slice as `Sam2d` has them."""

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Names of facebookresearch/sam2 -> transformers' (see `sam2_names`)."""
        return sam2_names(state)

    def embed(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings of pictures (N, 3, edge, edge), finest first, each (N, C, h, w)."""
        flat = self._part("get_image_features")(pixels, return_dict=True).fpn_hidden_states
        sizes = self._part("backbone_feature_sizes")
        return [
            m.permute(1, 2, 0).reshape(m.shape[1], m.shape[2], *size)
            for m, size in zip(flat, sizes, strict=True)
        ]

    def ask(self, embedding: Sequence[torch.Tensor], layout: Layout, ask: Ask) -> torch.Tensor:
        """Low-resolution logits (h, w) of one slice seen alone, without memory of others.

        Where the network believes the object is not on the slice it says so everywhere; while training it is
        not asked, because that answer has no gradient.
        """
        device = embedding[-1].device
        # positions in bfloat16 would be off by pixels
        with torch.autocast(device.type, enabled=False):
            clicks = {k: v.to(device) for k, v in as_clicks(layout, ask).items()}
            low = None if ask.low is None else ask.low.float()[None, None].to(device)
            sparse, dense = self._part("prompt_encoder")(**clicks, input_boxes=None, input_masks=low)
            positions = self._part("get_image_wide_positional_embeddings")()
        several = is_ambiguous(ask)
        masks, quality, _, present = self._part("mask_decoder")(
            image_embeddings=embedding[-1] + self._part("no_memory_embedding")[..., None].transpose(1, 2),
            image_positional_embeddings=positions,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
            high_resolution_features=list(embedding[:-1]),
        )
        offered: torch.Tensor = masks[0, 0]
        chosen = offered[int(quality[0, 0].argmax()) if several else 0]
        absent = not self.training and bool((present.detach() <= 0).all())
        return torch.full_like(chosen, ABSENT) if absent else chosen

    def answers(self, stack: Stack, placed: Placed) -> Answers:
        """(slice, low-resolution logits) of a prompt on a scan, followed by the network's memory."""
        questions = {key: as_clicks(stack.layout, placed.first(key)) for key in placed.keys}
        return propagate(self.net, stack, questions, placed.reach)


def as_clicks(layout: Layout, ask: Ask) -> dict[str, torch.Tensor]:
    """A slice's prompt as SAM 2 takes it: positions (1, 1, N, 2), signs (1, 1, N); a box's corners first."""
    corners = np.zeros((0, 2)) if ask.box is None else np.array(ask.box).reshape(2, 2)
    signs = [*(CORNERS if ask.box is not None else ()), *ask.signs]
    points = layout.to_input(np.concatenate([corners, ask.points]))
    return {
        "input_points": points[None, None],
        "input_labels": torch.tensor(signs, dtype=torch.int32)[None, None],
    }
