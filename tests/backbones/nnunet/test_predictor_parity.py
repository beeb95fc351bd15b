"""Whole scans: the session's decision is `nnUNetPredictor`'s, voxel by voxel, on the same folder and file."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch

from umdseg.backbones import load_backbone
from umdseg.data.io.nifti import read_image
from umdseg.inference import label_map, open

NAMES = ("liver", "spleen", "kidney_left", "pancreas")
OWN = {"odd thing": "pancreas"}


def predictor(folder, folds=None, mirroring=True):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    made = nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
    made.initialize_from_trained_model_folder(str(folder), folds, "checkpoint_final.pth")
    return made


def theirs(folder, files, folds=(0,), mirroring=True):
    """(X, Y, Z) label map by nnU-Net's own reader and predictor."""
    with contextlib.redirect_stdout(io.StringIO()):
        made = predictor(folder, folds, mirroring)
        data, properties = made.plans_manager.image_reader_writer_class().read_images([str(f) for f in files])
        return made.predict_single_npy_array(data, properties).transpose(2, 1, 0)


def ours(folder, file, **options):
    backbone = load_backbone("nnunet", folder=str(folder), names=OWN, **options)
    return label_map(open(backbone, file, "ct"), NAMES)


@pytest.fixture
def scan(make, tmp_path):
    """A scan on another spacing than the plans', with a border of zeros, at an odd place."""
    image, _ = make.blobs((30, 26, 27), seed=7)
    image[:3] = 0
    image[..., -2:] = 0
    affine = np.diag([-2.6, 2.3, 2.1, 1.0])
    affine[:3, 3] = (41.0, -17.0, 8.0)
    return make.save(tmp_path / "scan_0000.nii.gz", image, affine)


def same(found, expected):
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(found, expected)


def test_one_fold_with_mirroring(make, tmp_path, scan):
    folder = make(tmp_path / "m")
    same(ours(folder, scan), theirs(folder, [scan]))


def test_mirroring_can_be_left_out(make, tmp_path, scan):
    folder = make(tmp_path / "m")
    plain = theirs(folder, [scan], mirroring=False)
    same(ours(folder, scan, mirroring=False), plain)
    assert (plain != theirs(folder, [scan])).any()


def test_a_trainer_without_mirroring(make, tmp_path, scan):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class NoMirroring(nnUNetTrainer):
        def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
            out = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            self.inference_allowed_mirroring_axes = None
            return (*out[:-1], None)

    NoMirroring.__name__ = "nnUNetTrainer"
    folder = make(tmp_path / "m", trainer=NoMirroring)
    same(ours(folder, scan), theirs(folder, [scan]))
    same(ours(folder, scan), theirs(folder, [scan], mirroring=False))


def test_folds_are_averaged(make, tmp_path, scan):
    folder = make(tmp_path / "m", folds=(0, 1, "all"))
    both = theirs(folder, [scan], (0, 1), mirroring=False)
    # fold_all is no part of an ensemble, unless it is asked for
    same(ours(folder, scan, mirroring=False), both)
    alone = theirs(folder, [scan], (1,), mirroring=False)
    same(ours(folder, scan, folds=[1], mirroring=False), alone)
    same(
        ours(folder, scan, folds=["all"], mirroring=False), theirs(folder, [scan], ("all",), mirroring=False)
    )
    assert (both != alone).any()


def test_thick_slices_are_resampled_apart_and_axes_transposed(make, tmp_path):
    def thick(plans, configuration):
        plans.update(transpose_forward=[1, 0, 2], transpose_backward=[1, 0, 2])
        configuration.update(spacing=[9.0, 2.0, 2.5], patch_size=[8, 16, 24])
        kernels = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
        configuration["architecture"]["arch_kwargs"].update(
            kernel_sizes=kernels, strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]]
        )

    folder = make(tmp_path / "m", edit=thick)
    image, _ = make.blobs((26, 9, 30), seed=3)
    scan = make.save(tmp_path / "scan_0000.nii.gz", image, np.diag([2.2, 11.0, 2.4, 1.0]))
    same(ours(folder, scan, mirroring=False), theirs(folder, [scan], mirroring=False))


def test_plans_from_before_architectures_were_named(make, tmp_path, scan):
    def old(plans, configuration):
        arch = configuration.pop("architecture")["arch_kwargs"]
        configuration.update(
            UNet_class_name="PlainConvUNet",
            UNet_base_num_features=4,
            unet_max_num_features=8,
            n_conv_per_stage_encoder=arch["n_conv_per_stage"],
            n_conv_per_stage_decoder=arch["n_conv_per_stage_decoder"],
            num_pool_per_axis=[2, 2, 2],
            pool_op_kernel_sizes=arch["strides"],
            conv_kernel_sizes=arch["kernel_sizes"],
        )

    folder = make(tmp_path / "m", edit=old)
    same(ours(folder, scan, mirroring=False), theirs(folder, [scan], mirroring=False))


def test_residual_encoders_zscores_and_torch_resampling(make, tmp_path, scan):
    def residual(plans, configuration):
        architecture = configuration["architecture"]
        architecture["network_class_name"] = (
            "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
        )
        kwargs = architecture["arch_kwargs"]
        kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")
        configuration.update(normalization_schemes=["ZScoreNormalization"], use_mask_for_norm=[True])
        quick = {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False}
        configuration.update(
            resampling_fn_probabilities="resample_torch_fornnunet", resampling_fn_probabilities_kwargs=quick
        )

    folder = make(tmp_path / "m", edit=residual)
    same(ours(folder, scan, mirroring=False), theirs(folder, [scan], mirroring=False))


def test_files_through_the_command_lines_function(make, tmp_path):
    """`predict_from_files` with a reader that turns images to RAS first."""

    def reorient(plans, configuration):
        plans["image_reader_writer"] = "NibabelIOWithReorient"

    folder = make(tmp_path / "m", edit=reorient)
    image, _ = make.blobs((24, 28, 26), seed=5)
    turned = np.array([[0, 0, -2.4, 30], [-2.0, 0, 0, 12], [0, 2.2, 0, -4], [0, 0, 0, 1.0]])
    scan = make.save(tmp_path / "in" / "case_0000.nii.gz", image, turned)
    with contextlib.redirect_stdout(io.StringIO()):
        predictor(folder, (0,), False).predict_from_files_sequential([[str(scan)]], [str(tmp_path / "case")])
    expected = np.asarray(read_image(tmp_path / "case.nii.gz").array)
    same(ours(folder, scan, mirroring=False), expected)


def test_regions_are_asked_for_one_by_one(make, tmp_path, scan):
    labels = {"background": 0, "liver": [1, 2, 3], "spleen": [2, 3], "kidney_left": 3}
    folder = make(tmp_path / "m", labels=labels, regions_class_order=[1, 2, 3])
    expected = theirs(folder, [scan], mirroring=False)
    backbone = load_backbone("nnunet", folder=str(folder), mirroring=False)
    assert backbone.card.output == "sigmoid"
    masks = [
        label_map(open(backbone, scan, "ct"), [name]) == 1 for name in ("liver", "spleen", "kidney_left")
    ]
    # nnU-Net writes regions over each other in that order
    painted = np.zeros_like(expected)
    for value, mask in enumerate(masks, start=1):
        painted[mask] = value
    same(painted, expected)


def test_two_channels_of_one_person(make, tmp_path, scan):
    folder = make(tmp_path / "m", channels=["CT", "PET"])
    ct = read_image(scan)
    pet, _ = make.blobs((30, 26, 27), seed=11)
    pet_file = make.save(tmp_path / "scan_0001.nii.gz", pet, ct.grid.affine)
    backbone = load_backbone("nnunet", folder=str(folder), names=OWN, mirroring=False)
    session = backbone.session_of({"pet": read_image(pet_file), "ct": ct})
    same(label_map(session, NAMES), theirs(folder, [scan, pet_file], mirroring=False))
