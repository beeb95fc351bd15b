"""A model folder in VoxTell's layout: its network narrow, weights and embeddings random."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from umdseg.backbones.voxtell import model

EDGE, DEPTH = 32, 24
TEXTS = [
    "liver",
    "spleen",
    "left kidney",
    "Right Kidney",
    "kidney left",
    "a large lesion in the liver",
    "aorta",
]
CHANNELS = [4, 4, 4, 8, 8, 8]


@cache
def narrow_network():
    """The official class, narrow; everything the plans say goes through."""
    from voxtell.model.voxtell_model import VoxTellModel

    class Narrow(VoxTellModel):
        TRANSFORMER_NUM_HEADS, TRANSFORMER_NUM_LAYERS = 2, 2
        DECODER_CONFIGS: ClassVar = {
            stage: {"channels": count, "shape": (EDGE >> stage,) * 3} for stage, count in enumerate(CHANNELS)
        }

        def __init__(self, **arguments):
            sizes = {"num_heads": 2, "query_dim": 24, "project_to_decoder_hidden_dim": 16}
            super().__init__(**{**arguments, **sizes})

    return Narrow


@contextmanager
def narrowed():
    """The package and umdseg build the narrow network, for texts of 24 numbers."""
    from voxtell.inference import predictor
    from voxtell.model import voxtell_model

    def build(**arguments):
        return narrow_network()(**{**arguments, "text_embedding_dim": DEPTH})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voxtell_model, "VoxTellModel", narrow_network())
        patch.setattr(predictor, "VoxTellModel", build)
        patch.setattr(model, "TEXT_DECODER", {**model.TEXT_DECODER, "text_embedding_dim": DEPTH})
        yield


@pytest.fixture(autouse=True)
def narrow():
    with narrowed():
        yield


def plans():
    arguments = {
        "n_stages": 6,
        "features_per_stage": CHANNELS,
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 6,
        # the last stage keeps its 2 x 2 x 2 voxels: of one voxel there is no variance
        "strides": [[1, 1, 1], *([[2, 2, 2]] * 4), [1, 1, 1]],
        "n_blocks_per_stage": [1] * 6,
        "n_conv_per_stage_decoder": [1] * 5,
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    needed = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    architecture = {"arch_kwargs": arguments, "_kw_requires_import": needed}
    return {"configurations": {"3d_fullres": {"patch_size": [EDGE] * 3, "architecture": architecture}}}


class Folder:
    """Writes model folders as the Hugging Face repository has them."""

    plans, edge, texts = staticmethod(plans), EDGE, TEXTS

    def __call__(self, root: Path, texts=TEXTS, seed=0, **more) -> Path:
        folder = root / "voxtell_v1.1"
        (folder / "fold_0").mkdir(parents=True)
        (folder / "plans.json").write_text(json.dumps(plans()))
        torch.manual_seed(seed)
        net = model.build_network(plans()["configurations"]["3d_fullres"], folder)
        torch.save(
            {"network_weights": net.state_dict(), "current_epoch": np.int64(3), **more},
            folder / "fold_0" / "checkpoint_final.pth",
        )
        bank = root / "embeddings" / "voxtell_v1.1" / "text_embeddings.npz"
        bank.parent.mkdir(parents=True)
        vectors = np.random.default_rng(seed).normal(0, 3, (len(texts), DEPTH)).astype(np.float16)
        np.savez(bank, labels=np.array(texts), embeddings=vectors)
        return folder


@pytest.fixture(scope="session")
def write() -> Folder:
    return Folder()


@pytest.fixture(scope="session")
def folder(write, tmp_path_factory) -> Path:
    with narrowed():
        return write(tmp_path_factory.mktemp("voxtell"))
