"""A model folder in nnInteractive's layout: its network narrow, its weights random."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

ARCHITECTURE = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
# the package refines in tiles with margins of 24 voxels
EDGE = 56


def plans(configuration="3d_fullres_ps192_bs24"):
    """Plans in nnU-Net's format, two stages wide enough to answer."""
    arguments = {
        "n_stages": 2,
        "features_per_stage": [4, 8],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 2,
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_blocks_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "dataset_name": "Dataset225_nnInteractiveV2",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {},
        "configurations": {
            configuration: {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [EDGE] * 3,
                "spacing": [1.0, 1.0, 1.0],
                "normalization_schemes": ["ZScoreNormalization"],
                "use_mask_for_norm": [False],
                "architecture": {
                    "network_class_name": ARCHITECTURE,
                    "arch_kwargs": arguments,
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
    }


class Folder:
    """Writes model folders."""

    plans, edge = staticmethod(plans), EDGE

    def __call__(self, root: Path, info=None, seed=0, **more) -> Path:
        """`root` with plans, dataset, what interactions it takes, and one checkpoint."""
        from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

        root.mkdir(parents=True)
        facts = plans()
        (root / "plans.json").write_text(json.dumps(facts))
        dataset = {"channel_names": {"0": "image"}, "labels": {"background": 0, "object": 1}}
        (root / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ".nii.gz"}))
        if info is None:
            (root / "inference_session_class.json").write_text(
                json.dumps({"point_radius": 2, "interaction_decay": 0.9})
            )
        else:
            (root / "inference_info.json").write_text(json.dumps(info))
        arguments = dict(facts["configurations"]["3d_fullres_ps192_bs24"]["architecture"]["arch_kwargs"])
        arguments |= {
            "conv_op": torch.nn.Conv3d,
            "norm_op": torch.nn.InstanceNorm3d,
            "nonlin": torch.nn.LeakyReLU,
        }
        torch.manual_seed(seed)
        network = ResidualEncoderUNet(8, num_classes=2, deep_supervision=False, **arguments)
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": "nnInteractiveTrainer_stub",
            "init_args": {"configuration": "3d_fullres_ps192_bs24", "fold": 0},
            "inference_allowed_mirroring_axes": None,
            **more,
        }
        (root / "fold_0").mkdir()
        torch.save(checkpoint, root / "fold_0" / "checkpoint_final.pth")
        return root


@pytest.fixture(scope="session")
def write() -> Folder:
    return Folder()


@pytest.fixture(scope="session")
def folder(write: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("nninteractive") / "nnInteractive_v1.0")
