"""Tensor names of facebookresearch/segment-anything and MedSAM -> those of transformers' `SamModel`."""

from __future__ import annotations

import re

import torch

State = dict[str, torch.Tensor]

# of the training images' preprocessing, which `umdseg.backbones.sam2d.pictures` does
_CONSTANTS = ("pixel_mean", "pixel_std")
_POSITIONS = (
    "prompt_encoder.shared_embedding.positional_embedding",
    "shared_image_embedding.positional_embedding",
)
_RULES = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"^image_encoder\.", "vision_encoder."),
        (r"^(vision_encoder)\.blocks\.", r"\1.layers."),
        (r"^(vision_encoder\.patch_embed)\.proj\.", r"\1.projection."),
        (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
        (r"^(vision_encoder\.neck)\.0\.", r"\1.conv1."),
        (r"^(vision_encoder\.neck)\.1\.", r"\1.layer_norm1."),
        (r"^(vision_encoder\.neck)\.2\.", r"\1.conv2."),
        (r"^(vision_encoder\.neck)\.3\.", r"\1.layer_norm2."),
        (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
        (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
        (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
        (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
        (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
        (r"\.point_embeddings\.", ".point_embed."),
        (
            r"\.pe_layer\.positional_encoding_gaussian_matrix$",
            ".shared_embedding.positional_embedding",
        ),
        (r"\.output_upscaling\.0\.", ".upscale_conv1."),
        (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
        (r"\.output_upscaling\.3\.", ".upscale_conv2."),
        (r"(\.iou_prediction_head|\.output_hypernetworks_mlps\.\d+)\.layers\.0\.", r"\1.proj_in."),
        (r"(\.iou_prediction_head|\.output_hypernetworks_mlps\.\d+)\.layers\.1\.", r"\1.layers.0."),
        (r"(\.iou_prediction_head|\.output_hypernetworks_mlps\.\d+)\.layers\.2\.", r"\1.proj_out."),
    )
)


def sam_names(state: State) -> State:
    """A state dict of the original repository under transformers' names; one of transformers stays.

    The mapping is that of transformers' `models/sam/convert_sam_to_hf.py`. Transformers holds the matrix of
    positional encodings under two names, of which safetensors files keep only one: the other is added.
    """
    if any(name.startswith("image_encoder.") for name in state):
        state = {renamed(name): value for name, value in state.items() if name not in _CONSTANTS}
    for known, other in (_POSITIONS, _POSITIONS[::-1]):
        if known in state and other not in state:
            state = {**state, other: state[known]}
    return state


def renamed(name: str) -> str:
    """One name of the original repository under transformers' name."""
    for pattern, new in _RULES:
        name = pattern.sub(new, name)
    return name
