"""Tensor names of facebookresearch/sam2 and MedSAM2 -> those of transformers' `Sam2VideoModel`."""

from __future__ import annotations

import re

import torch

State = dict[str, torch.Tensor]

_HEAD = r"(iou_prediction_head|output_hypernetworks_mlps\.\d+|pred_obj_score_head|object_pointer_proj)"
_RULES = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"^sam_prompt_encoder\.", "prompt_encoder."),
        (r"^sam_mask_decoder\.", "mask_decoder."),
        (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
        (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
        (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
        (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
        (r"\.dwconv\.", ".depthwise_conv."),
        (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
        (r"\.gamma$", ".scale"),
        # convolution, norm, activation, four times over, and one convolution more
        (r"(\.mask_downsampler)\.encoder\.12\.", r"\1.final_conv."),
        (r"\.out_proj\.", ".o_proj."),
        (r"\.norm(\d?|_final_attn)\.", r".layer_norm\1."),
        (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
        (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
        (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
        (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
        (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
        (r"\.output_upscaling\.0\.", ".upscale_conv1."),
        (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
        (r"\.output_upscaling\.3\.", ".upscale_conv2."),
        (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
        (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
        (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
        (r"^obj_ptr_proj\.", "object_pointer_proj."),
        (_HEAD + r"\.layers\.0\.", r"\1.proj_in."),
        (_HEAD + r"\.layers\.1\.", r"\1.layers.0."),
        (_HEAD + r"\.layers\.2\.", r"\1.proj_out."),
        (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
        (r"^no_obj_ptr$", "no_object_pointer"),
        (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
        (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
        (r"^no_mem_embed$", "no_memory_embedding"),
        (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    )
)
_DOWNSAMPLER = re.compile(r"(\.mask_downsampler)\.encoder\.(\d+)\.")
_CLICKS = tuple(f"prompt_encoder.point_embeddings.{kind}.weight" for kind in range(4))
_POSITIONS = (
    "prompt_encoder.shared_embedding.positional_embedding",
    "shared_image_embedding.positional_embedding",
)


def sam2_names(state: State) -> State:
    """A state dict of the original repository under transformers' names; one of transformers stays.

    The mapping is that of transformers' `models/sam2_video/convert_sam2_video_to_hf.py`: besides names, the
    four embeddings of click kinds become one table, and the matrix of positional encodings is held twice.
    """
    if any(name.startswith("image_encoder.") for name in state):
        state = {renamed(name): value for name, value in state.items()}
        if all(name in state for name in _CLICKS):
            table = torch.cat([state[name] for name in _CLICKS])
            rest = {name: value for name, value in state.items() if name not in _CLICKS}
            state = {**rest, "prompt_encoder.point_embed.weight": table}
    for known, other in (_POSITIONS, _POSITIONS[::-1]):
        if known in state and other not in state:
            state = {**state, other: state[known]}
    return state


def renamed(name: str) -> str:
    """One name of the original repository under transformers' name."""
    for pattern, new in _RULES:
        name = pattern.sub(new, name)
    return _DOWNSAMPLER.sub(_layer, name)


def _layer(found: re.Match[str]) -> str:
    number, kind = divmod(int(found[2]), 3)
    return f"{found[1]}.layers.{number}.{('conv', 'layer_norm')[kind]}."
