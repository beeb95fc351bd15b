"""VISTA3D in small: MONAI's own classes, few enough weights to ship and to train on two cores."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

WIDTH = 16
# attention scores are divided by sqrt(width): this gain makes a click's own position win the softmax
MATCH_GAIN = 8**0.5


def tiny_network() -> nn.Module:
    """MONAI's VISTA3D with 4 levels instead of 5, one block each, 16 instead of 48 channels."""
    from monai.networks.nets import SegResNetDS2
    from monai.networks.nets.vista3d import VISTA3D, ClassMappingClassify, PointMappingSAM, TwoWayTransformer

    encoder = SegResNetDS2(
        in_channels=1,
        blocks_down=(1, 1, 1, 1),
        norm="instance",
        out_channels=WIDTH,
        init_filters=WIDTH,
        dsdepth=1,
    )
    class_head = ClassMappingClassify(n_classes=512, feature_size=WIDTH, use_mlp=True)
    point_head = PointMappingSAM(feature_size=WIDTH, n_classes=512, last_supported=132)
    # the official 4 heads on half the width would leave 2 numbers per head at this width, one spatial
    # frequency: a click could not be told from its whole stripe. One head sees all frequencies.
    point_head.transformer = TwoWayTransformer(
        depth=2, embedding_dim=WIDTH, mlp_dim=512, num_heads=1, attention_downsample_rate=1
    )
    start_click_attention(point_head)
    return cast(nn.Module, VISTA3D(image_encoder=encoder, class_head=class_head, point_head=point_head))


def start_click_attention(point_head: Any) -> None:
    """Let an untrained click read the features at its own position.

    A click and a voxel at the same place have the same position encoding. With identity projections the
    click's attention to the image starts as "what lies here"; from random projections this matching is not
    found within the few hundred steps that a small network trains on two cores. The learned embeddings are
    made small beside the position encoding for the same reason.

    Args:
        point_head: a `PointMappingSAM` whose transformer keeps its width (downsample rate 1).
    """
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in point_head.transformer.layers:
            attention = layer.cross_attn_token_to_image
            for name, gain in (
                ("q_proj", MATCH_GAIN),
                ("k_proj", MATCH_GAIN),
                ("v_proj", 1),
                ("out_proj", 1),
            ):
                projection = getattr(attention, name)
                size = projection.weight.shape
                jitter = torch.randn(size, generator=noise) * (0.02 if gain == MATCH_GAIN else 0.0)
                projection.weight.copy_(gain * torch.eye(size[0]) + jitter)
                projection.bias.zero_()
        learned = [*point_head.point_embeddings, point_head.mask_tokens, point_head.not_a_point_embed]
        learned += [point_head.supported_embed, point_head.zeroshot_embed, point_head.special_class_embed]
        for embedding in learned:
            embedding.weight.mul_(0.1)
