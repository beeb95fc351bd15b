"""The official networks, from transformers' classes; sizes as published, or reduced for tests."""

from __future__ import annotations

from typing import Any

from torch import nn

# width, blocks, heads and blocks with global attention of the ViT image encoders (arXiv 2304.02643)
VIT_B = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
VIT_L = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
VIT_H = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16}
_GLOBAL = {12: [2, 5, 8, 11], 24: [5, 11, 17, 23], 32: [7, 15, 23, 31]}


def sam(vision: dict[str, Any], **others: Any) -> nn.Module:
    """SAM with an image encoder of the given size.

    Args:
        vision: fields of `SamVisionConfig`.
        others: `prompt_encoder_config` and `mask_decoder_config`, where they are not the published ones.
    """
    from transformers import SamConfig, SamModel

    blocks = {"global_attn_indexes": _GLOBAL.get(vision["num_hidden_layers"])}
    # the parts' configurations default to the published ones
    net: nn.Module = SamModel(SamConfig(vision_config={**blocks, **vision}, **others))
    return net.eval()


def sam2(edge: int, **others: Any) -> nn.Module:
    """SAM 2.1 with the tiny Hiera image encoder, memory included.

    Args:
        edge: pixels of the square input (SAM 2.1: 1024; MedSAM2's `sam2.1_hiera_t512`: 512).
        others: fields of `Sam2VideoConfig` that differ from the published ones.
    """
    from transformers import Sam2VideoConfig, Sam2VideoModel

    cells = edge // 16
    vision = {
        "backbone_config": {"model_type": "sam2_hiera_det_model", "image_size": [edge, edge]},
        "backbone_feature_sizes": [[4 * cells] * 2, [2 * cells] * 2, [cells] * 2],
        **others.pop("vision_config", {}),
    }
    prompts = {"image_size": edge, **others.pop("prompt_encoder_config", {})}
    config = Sam2VideoConfig(
        vision_config={"model_type": "sam2_vision_model", **vision},
        prompt_encoder_config=prompts,
        image_size=edge,
        memory_attention_rope_feat_sizes=[cells, cells],
        **others,
    )
    net: nn.Module = Sam2VideoModel(config)
    return net.eval()
