"""Reduced networks of the official architectures, and what the original repositories' own say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from umdseg.backbones.sam2d import cards, networks
from umdseg.backbones.sam2d.backbone import Sam2d
from umdseg.backbones.sam2d.options import Sam2dOptions
from umdseg.backbones.sam2d.sam2 import Sam2

EDGE, EDGE2 = 64, 128


def small_sam():
    """SAM 24 wide with 2 blocks (one windowed, one global) on 64 pixels."""
    return networks.sam(
        {
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": EDGE,
            "window_size": 3,
            "global_attn_indexes": [1],
            "output_channels": 32,
            "num_pos_feats": 16,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": EDGE},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32},
    )


def small_sam2():
    """SAM 2.1 8 wide with 5 blocks on 128 pixels."""
    trunk = {
        "model_type": "sam2_hiera_det_model",
        "image_size": [EDGE2, EDGE2],
        "hidden_size": 8,
        "embed_dim_per_stage": [8, 16, 32, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "global_attention_blocks": [3],
    }
    return networks.sam2(
        EDGE2,
        vision_config={
            "backbone_config": trunk,
            "backbone_channel_list": [64, 32, 16, 8],
            "fpn_hidden_size": 128,
        },
        prompt_encoder_config={"hidden_size": 128},
        mask_decoder_config={"hidden_size": 128},
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=64,
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=512,
    )


def draw(names):
    """The weights behind `official.json`: drawn in the order of the official networks' names."""
    rng = np.random.default_rng(0)
    state = {}
    for name, shape in names:
        if name in ("pixel_mean", "pixel_std"):
            state[name] = torch.zeros(shape)
            continue
        # norms scale by about 1, and SAM 2 believes to see something
        middle = 3.0 * name.endswith("pred_obj_score_head.layers.2.bias")
        middle += float(len(shape) == 1 and name.endswith("weight"))
        state[name] = torch.from_numpy(rng.normal(0, 0.15, shape) + middle).float()
    return state


@pytest.fixture(scope="session")
def drawn():
    """`draw`, for tests."""
    return draw


@pytest.fixture(scope="session")
def official():
    """Names, shapes and answers of the original repositories' networks at the sizes above.

    Made with segment-anything 1.0 and sam2 1.1.0 (PyPI): state dicts as `draw` makes them, pictures
    `default_rng(1).normal(0, 1, (N, 3, edge, edge))`; of low-resolution logits every third (SAM) or
    thirteenth (SAM 2) number.
    """
    return json.loads((Path(__file__).parent / "official.json").read_text(encoding="utf-8"))


@pytest.fixture
def make(official):
    """make(style, **options): a reduced model with the weights behind `official.json`."""

    def build(style="sam", **options):
        second = style in ("sam2", "medsam2")
        net = small_sam2() if second else small_sam()
        kind, card = {
            "sam": (Sam2d, cards.sam_vit_b_card()),
            "medsam": (Sam2d, cards.medsam_card()),
            "sam2": (Sam2, cards.sam2_tiny_card()),
            "medsam2": (Sam2, cards.medsam2_card()),
        }[style]
        backbone = kind(card, net, style, Sam2dOptions(**options)).eval()
        state = draw(official["sam2" if second else "sam"]["names"])
        net.load_state_dict(backbone.convert(state), strict=True)
        return backbone

    return build


class Bright(Sam2d):
    """In place of the network: the bright things that a prompt touches. Keeps what it was asked."""

    def __init__(self, **options) -> None:
        super().__init__(cards.sam_vit_b_card(), small_sam(), "sam", Sam2dOptions(**options))
        self.embedded, self.asked = 0, []

    def embed(self, pixels):
        self.embedded += len(pixels)
        return [pixels[:, 1:2]]

    def ask(self, embedding, layout, ask):
        from scipy import ndimage

        picture = embedding[0][0, 0].numpy()
        self.asked.append((picture, layout, ask))
        parts, _ = ndimage.label(picture > 0.5, structure=np.ones((3, 3)))
        touched = set()
        for (x, y), sign in zip(layout.to_input(ask.points).round().long().tolist(), ask.signs, strict=True):
            touched |= {parts[y, x]} if sign else set()
        if ask.box is not None:
            x0, y0, x1, y1 = (
                layout.to_input(np.array(ask.box).reshape(2, 2)).round().long().flatten().tolist()
            )
            touched |= set(parts[y0 : y1 + 1, x0 : x1 + 1].ravel())
        found = np.isin(parts, list(touched - {0}))
        return torch.from_numpy(np.where(found, 5.0, -5.0)).float()


@pytest.fixture
def bright():
    """bright(**options): the stand-in for a network."""
    return lambda **options: Bright(**options).eval()
