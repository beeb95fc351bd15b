"""How every registered model is built at reduced size: official classes, narrow, random weights, no download.

A new family is one row of `FAMILIES`; a model of a known family needs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from umdseg import anatomy, registry
from umdseg.backbones import Backbone

Shape = tuple[int, int, int]


def nothing(patch: pytest.MonkeyPatch) -> None:
    """The model is small enough as it is, or its options make it so."""


def no_options(name: str, root: Path) -> dict[str, Any]:
    """None but the name and random weights."""
    return {}


@dataclass(frozen=True)
class Family:
    """How to reduce the models of one family.

    Attributes:
        shrink: makes the networks narrow, by patching what builds them.
        options: further options of a model; files it needs are written below the folder.
        packages: without one of them its tests are skipped.
        window: voxels of test windows; None = (d, d, 2d) of the card's divisor d, 8 at least.
    """

    shrink: Callable[[pytest.MonkeyPatch], None] = nothing
    options: Callable[[str, Path], dict[str, Any]] = no_options
    packages: tuple[str, ...] = ()
    window: Shape | None = None


def narrow_vista3d(patch: pytest.MonkeyPatch) -> None:
    from monai.networks import nets

    from umdseg.backbones import vista3d

    # the same class table: what the battery asks does not depend on width
    patch.setattr(nets, "vista3d132", vista3d.tiny_network)
    small_windows(patch, vista3d)


def narrow_monai(patch: pytest.MonkeyPatch) -> None:
    from monai.networks import nets

    from umdseg.backbones.monai_cnn import models

    def ctfm(outputs: int) -> Any:
        return nets.SegResNetDS(init_filters=4, out_channels=outputs, blocks_down=(1,) * 5, dsdepth=4)

    def segresnet(outputs: int, filters: int, dropout: float) -> Any:
        return nets.SegResNet(
            init_filters=8, out_channels=outputs, dropout_prob=dropout, blocks_down=(1,) * 4
        )

    def swin(outputs: int, features: int = 48, v2: bool = False) -> Any:
        return nets.SwinUNETR(in_channels=1, out_channels=outputs, feature_size=12, use_v2=v2)

    patch.setattr(models, "_ctfm", ctfm)
    patch.setattr(models, "_segresnet", segresnet)
    patch.setattr(models, "_swin", swin)
    small_windows(patch, models)


def narrow_sam3d(patch: pytest.MonkeyPatch) -> None:
    from medim.models.sam_med3d import build_sam3D_vit_b_ori

    from umdseg.backbones import sam3d

    def network() -> Any:
        return build_sam3D_vit_b_ori(
            encoder_embed_dim=24, encoder_depth=2, encoder_num_heads=2,
            encoder_global_attn_indexes=[1], prompt_embed_dim=48, image_size=32,
        )  # fmt: skip

    built = sam3d._built
    patch.setattr(sam3d, "build_network", network)
    patch.setattr(sam3d, "_built", lambda card, o: built(replace(card, window=(32,) * 3, divisor=32), o))


def narrow_sam2d(patch: pytest.MonkeyPatch) -> None:
    from umdseg.backbones.sam2d import networks

    sam, sam2 = networks.sam, networks.sam2
    vision = {
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64,
        "window_size": 3, "global_attn_indexes": [1], "output_channels": 32, "num_pos_feats": 16,
    }  # fmt: skip
    decoder = {"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32}
    trunk = {
        "model_type": "sam2_hiera_det_model", "image_size": [128, 128], "hidden_size": 8,
        "embed_dim_per_stage": [8, 16, 32, 64], "blocks_per_stage": [1, 1, 2, 1],
        "global_attention_blocks": [3],
    }  # fmt: skip
    neck = {"backbone_config": trunk, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 128}
    memory = {
        "memory_attention_hidden_size": 128, "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 64, "memory_encoder_hidden_size": 128,
        "memory_encoder_output_channels": 64, "mask_downsampler_embed_dim": 128,
        "memory_fuser_embed_dim": 128, "memory_fuser_intermediate_dim": 512,
    }  # fmt: skip
    prompts, masks = {"hidden_size": 32, "image_size": 64}, {"hidden_size": 128}
    patch.setattr(
        networks, "sam", lambda size: sam(vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    )
    patch.setattr(
        networks,
        "sam2",
        lambda edge: sam2(
            128, vision_config=neck, prompt_encoder_config=masks, mask_decoder_config=masks, **memory
        ),
    )


def small_windows(patch: pytest.MonkeyPatch, module: Any) -> None:
    """Whole scans in windows of 64 voxels: random weights have no use for context."""
    load = module.load_weights

    def loaded(backbone: Backbone, options: Any) -> Any:
        edges = tuple(min(edge, 64) for edge in backbone.card.window)
        backbone.card = replace(backbone.card, window=edges)
        return load(backbone, options)

    patch.setattr(module, "load_weights", loaded)


def unet(name: str, root: Path) -> dict[str, Any]:
    """The two that are sized by options."""
    if name not in ("unet", "resenc_unet"):
        return {}
    if name == "resenc_unet":
        pytest.importorskip("dynamic_network_architectures")
    return {"width": 4, "levels": 3, "spacing": [6.0, 6.0, 6.0], "window": [32, 32, 32]}


BLOCKS = {
    "conv_op": "torch.nn.modules.conv.Conv3d", "conv_bias": True, "dropout_op": None,
    "dropout_op_kwargs": None, "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"affine": True}, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {},
}  # fmt: skip
IMPORTED = ["conv_op", "norm_op", "dropout_op", "nonlin"]
NETWORKS = "dynamic_network_architectures.architectures.unet"


def plans(configuration: dict[str, Any], channels: int) -> dict[str, Any]:
    """plans.json of nnU-Net v2 with one configuration."""
    facts = {"mean": 40.0, "std": 120.0, "percentile_00_5": -200.0, "percentile_99_5": 300.0}
    facts |= {"median": 40.0, "min": -500.0, "max": 900.0}
    resample = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        configuration[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        configuration[f"resampling_fn_{what}_kwargs"] = {**resample, "order": order, "is_seg": what == "seg"}
    return {
        "dataset_name": "D", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
        "configurations": {"3d_fullres": configuration},
        "foreground_intensity_properties_per_channel": {str(c): facts for c in range(channels)},
    }  # fmt: skip


def nnunet(name: str, root: Path) -> dict[str, Any]:
    """A result folder per network of the release, without checkpoints."""
    release = registry.resolve("model", name)
    channels = list(release.channels or ("ct",))
    known = list(anatomy.ids(release.scheme)) if release.scheme else ["liver", "spleen", "kidney_left"]
    if name == "lesiontracer":
        known = ["tumour"]
    for number, archive in enumerate(release.archives or [None]):
        # some networks of a release have no label among those of the table
        own = known[3 * number : 3 * number + 3] or [anatomy.structures()[20 + number]]
        place = root / (archive.folder if archive else "") / "nnUNetTrainer__nnUNetPlans__3d_fullres"
        place.mkdir(parents=True)
        arguments = {
            "n_stages": 3, "features_per_stage": [4, 8, 8], "kernel_sizes": [[3] * 3] * 3,
            "strides": [[1] * 3, [2] * 3, [2] * 3], "n_conv_per_stage": [1] * 3,
            "n_conv_per_stage_decoder": [1] * 2, **BLOCKS,
        }  # fmt: skip
        configuration = {
            "data_identifier": "x", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
            "patch_size": [16] * 3, "spacing": [6.0] * 3, "batch_dice": False,
            "normalization_schemes": ["CTNormalization"] * len(channels),
            "use_mask_for_norm": [False] * len(channels),
            "architecture": {"network_class_name": f"{NETWORKS}.PlainConvUNet", "arch_kwargs": arguments,
                             "_kw_requires_import": IMPORTED},
        }  # fmt: skip
        dataset = {"channel_names": {str(c): n.upper() for c, n in enumerate(channels)}, "numTraining": 2}
        dataset |= {"labels": {"background": 0, **{n: k for k, n in enumerate(own, 1)}}}
        (place / "plans.json").write_text(json.dumps(plans(configuration, len(channels))))
        (place / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ".nii.gz"}))
    return {"folder": str(root)}


def nninteractive(name: str, root: Path) -> dict[str, Any]:
    """A folder without checkpoint; the package refines in tiles with margins of 24 voxels."""
    arguments = {
        "n_stages": 2, "features_per_stage": [4, 8], "kernel_sizes": [[3] * 3] * 2,
        "strides": [[1] * 3, [2] * 3], "n_blocks_per_stage": [1] * 2, "n_conv_per_stage_decoder": [1],
        **BLOCKS,
    }  # fmt: skip
    configuration = {
        "data_identifier": "x", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": [56] * 3, "spacing": [1.0] * 3, "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": {"network_class_name": f"{NETWORKS}.ResidualEncoderUNet",
                         "arch_kwargs": arguments, "_kw_requires_import": IMPORTED},
    }  # fmt: skip
    dataset = {"channel_names": {"0": "image"}, "labels": {"background": 0, "object": 1}, "numTraining": 1}
    (root / "plans.json").write_text(json.dumps(plans(configuration, 1)))
    (root / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ".nii.gz"}))
    facts = {"point_radius": 2, "interaction_decay": 0.9}
    (root / "inference_session_class.json").write_text(json.dumps(facts))
    return {"folder": str(root)}


def own_module(name: str, root: Path) -> dict[str, Any]:
    """A user's class and its card."""
    code = "from monai.networks.nets import BasicUNet\n\n\ndef net(outputs):\n"
    code += "    return BasicUNet(3, 1, outputs, features=(4, 4, 4, 8, 8, 4))\n"
    card = {
        "spacing": [6.0, 6.0, 6.0], "window": [32, 32, 32], "divisor": 16, "output": "softmax",
        "intensity": {m: {"kind": "percentile", "low": 1, "high": 99} for m in ("ct", "pet", "mr")},
        "structures": {"liver": 1, "spleen": 2},
    }  # fmt: skip
    (root / "mine.py").write_text(code)
    (root / "card.yaml").write_text(yaml.safe_dump(card))
    return {"module": f"{root}/mine.py:net", "card": f"{root}/card.yaml", "arguments": {"outputs": 3}}


VOXTELL_TEXTS = ("liver", "spleen", "left kidney", "aorta")
VOXTELL_DEPTH = 24


def narrow_voxtell(patch: pytest.MonkeyPatch) -> None:
    """The official class, narrow, for texts of few numbers."""
    from voxtell.model import voxtell_model

    from umdseg.backbones.voxtell import model

    class Narrow(voxtell_model.VoxTellModel):
        TRANSFORMER_NUM_HEADS, TRANSFORMER_NUM_LAYERS = 2, 2
        DECODER_CONFIGS = {  # noqa: RUF012
            level: {"channels": count, "shape": (32 >> level,) * 3}
            for level, count in enumerate((4, 4, 4, 8, 8, 8))
        }

        def __init__(self, **arguments: Any) -> None:
            sizes = {"num_heads": 2, "query_dim": 24, "project_to_decoder_hidden_dim": 16}
            super().__init__(**{**arguments, **sizes})

    patch.setattr(voxtell_model, "VoxTellModel", Narrow)
    patch.setattr(model, "TEXT_DECODER", {**model.TEXT_DECODER, "text_embedding_dim": VOXTELL_DEPTH})


def voxtell(name: str, root: Path) -> dict[str, Any]:
    """Plans and a bank of embeddings, without checkpoint."""
    arguments = {
        "n_stages": 6, "features_per_stage": [4, 4, 4, 8, 8, 8], "kernel_sizes": [[3] * 3] * 6,
        # the last stage keeps its 2 x 2 x 2 voxels: of one voxel there is no variance
        "strides": [[1] * 3, *([[2] * 3] * 4), [1] * 3], "n_blocks_per_stage": [1] * 6,
        "n_conv_per_stage_decoder": [1] * 5, **BLOCKS,
    }  # fmt: skip
    configuration = {
        "patch_size": [32] * 3,
        "architecture": {"arch_kwargs": arguments, "_kw_requires_import": IMPORTED},
    }
    (root / "plans.json").write_text(json.dumps({"configurations": {"3d_fullres": configuration}}))
    numbers = np.random.default_rng(0).normal(0, 3, (len(VOXTELL_TEXTS), VOXTELL_DEPTH)).astype(np.float16)
    np.savez(root / "text_embeddings.npz", labels=np.array(VOXTELL_TEXTS), embeddings=numbers)
    return {"folder": str(root)}


FAMILIES = {
    "vista3d": Family(narrow_vista3d),
    "monai_cnn": Family(narrow_monai, unet),
    "nnunet": Family(options=nnunet, packages=("nnunetv2",)),
    "sam3d": Family(narrow_sam3d, packages=("medim",), window=(32, 32, 32)),
    "sam2d": Family(narrow_sam2d, window=(24, 20, 3)),
    "nninteractive": Family(options=nninteractive, packages=("nnInteractive",), window=(16, 16, 32)),
    "voxtell": Family(narrow_voxtell, voxtell, packages=("voxtell",), window=(32, 32, 32)),
    "torch_module": Family(options=own_module),
}


# input channels, where they are more than one
CHANNELS = {"lesiontracer": 2}
# releases of several networks
SEVERAL = ("totalseg_ct", "totalseg_mr", "moose", "cads")
# models that at reduced size differ in nothing but their card from another one: their networks run once
TWINS = {
    "seganypet_v1": "sam_med3d_turbo",
    "seganypet_v2": "sam_med3d_turbo",
    "seganypet_lesion": "sam_med3d_turbo",
    "sam_vit_l": "sam_vit_b",
    "sam_vit_h": "sam_vit_b",
    "monai_wholebody_fast": "monai_wholebody",
    "swinunetr_suprem": "swinunetr_ssl",
    "swinunetr_voco_ssl": "swinunetr_voco",
    "totalseg_ct_fast": "nnunet",
    "mrsegmentator": "nnunet",
    "totalseg_mr": "totalseg_ct",
}


def family(name: str) -> Family:
    """The row of a model; skips the test where a package of the family is not installed."""
    row = FAMILIES[registry.resolve("model", name).listing().family]
    for package in row.packages:
        pytest.importorskip(package)
    return row
