"""A stack of slices as transformers' video session, its frames made when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from umdseg.backbones.sam2d.stack import Stack

Clicks = Mapping[str, torch.Tensor]


def propagate(
    net: nn.Module, stack: Stack, questions: Mapping[int, Clicks], reach: tuple[int, int]
) -> Iterator[tuple[int, torch.Tensor]]:
    """Follow a structure through a stack, once towards the last slice and once towards the first.

    As the authors of MedSAM2 do: ask the key slices, propagate; forget everything, ask again, propagate in
    reverse. What is found in either direction counts. A direction ends where the mask vanishes beyond the
    outermost key slice, and at the end of the reach.

    Args:
        net: `transformers.Sam2VideoModel` in eval mode.
        stack: the slices.
        questions: key slice -> `input_points` and `input_labels`.
        reach: first and last slice that may be asked.

    Yields:
        (slice number, low-resolution logits (h, w)).
    """
    for reverse in (False, True):
        session = _session(net, stack)
        for key, clicks in questions.items():
            index = session.obj_id_to_idx(1)
            asked = {"point_coords": clicks["input_points"], "point_labels": clicks["input_labels"]}
            session.add_point_inputs(index, key, asked)
            session.obj_with_new_inputs = [1]
            low = _low(net, session, key, reverse=False)
            if not reverse:
                yield key, low
        if not questions:
            continue
        first, last = min(questions), max(questions)
        order = range(last - 1, reach[0] - 1, -1) if reverse else range(first + 1, reach[1] + 1)
        for number in order:
            if number in questions:
                continue
            low = _low(net, session, number, reverse=reverse)
            yield number, low
            beyond = number < first if reverse else number > last
            if beyond and not bool((low > 0).any()):
                break


def _low(net: Any, session: Any, number: int, reverse: bool) -> torch.Tensor:
    found = torch.as_tensor(net(session, frame_idx=number, reverse=reverse).pred_masks[0, 0])
    _forget(session, number, net.config.num_maskmem * (-1 if reverse else 1))
    # out of inference mode, in which transformers runs
    return found.float().clone()


def _forget(session: Any, number: int, span: int) -> None:
    """Drop what no later slice looks at; transformers would keep 6 MB per slice."""
    outputs = session.output_dict_per_obj[0]
    for kind in ("cond_frame_outputs", "non_cond_frame_outputs"):
        outputs[kind].get(number, {}).pop("high_res_masks", None)
    for name in ("maskmem_features", "maskmem_pos_enc"):
        outputs["non_cond_frame_outputs"].get(number - span, {}).pop(name, None)


def _session(net: Any, stack: Stack) -> Any:
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    rows, columns = stack.layout.size
    session: Any = Sam2VideoInferenceSession(
        video_height=rows,
        video_width=columns,
        inference_device=stack.device,
        inference_state_device=stack.device,
        dtype=torch.float32,
    )
    # only counted: all features come from the cache below
    session.processed_frames = range(stack.grid.shape[2])
    session.cache = _Features(net, stack)
    return session


class _Features:
    """Stands in for the session's cache: the stack's embeddings, which all prompts share."""

    def __init__(self, net: Any, stack: Stack) -> None:
        self._stack = stack
        self._encoding = net.vision_encoder.neck.position_encoding

    def get_vision_features(self, number: int) -> dict[str, list[torch.Tensor]]:
        """Flattened maps (h * w, 1, C) of a slice, finest first, and the positions of the last."""
        maps = self._stack.embedding(number)
        last = maps[-1]
        positions = self._encoding(last.shape, last.device, last.dtype)
        return {
            "vision_feats": [_flat(one) for one in maps],
            "vision_pos_embeds": [_flat(positions)],
        }


def _flat(maps: torch.Tensor) -> torch.Tensor:
    return maps.flatten(2).permute(2, 0, 1)
