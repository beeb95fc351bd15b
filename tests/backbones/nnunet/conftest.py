"""Result folders as nnU-Net itself makes them: its planner on a tiny dataset, its trainer's checkpoints."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("nnunetv2")
pytest.importorskip("seaborn", reason="nnU-Net's trainer needs it")

import nibabel as nib

LABELS = {"background": 0, "liver": 1, "spleen": 2, "left_kidney": 3, "odd thing": 4}
DATASET = "Dataset001_Tiny"


def blobs(shape, seed=0):
    """A CT-like volume (X, Y, Z) and labels 1 to 4."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    labels = np.zeros(shape, np.uint8)
    for value in range(1, 5):
        centre = rng.uniform(-0.5, 0.5, 3)
        labels[sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) < 0.15] = value
    image = -200.0 + 120.0 * labels + rng.normal(0, 25, shape)
    return image.astype(np.float32), labels


def save(path, array, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


class Maker:
    """Makes result folders from the plans of nnU-Net's own planner."""

    blobs, save = staticmethod(blobs), staticmethod(save)

    def __init__(self, plans, dataset):
        self.plans, self.dataset = plans, dataset

    def __call__(
        self,
        root,
        *,
        kind="3d_fullres",
        folds=(0,),
        edit=None,
        labels=None,
        channels=None,
        trainer=None,
        seed=0,
        **more,
    ):
        """Write `root/trainer__plans__kind`; `edit(plans, configuration)` changes the plans first."""
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

        plans, dataset = copy.deepcopy(self.plans), copy.deepcopy(self.dataset)
        dataset.update(more)
        if labels:
            dataset["labels"] = labels
        configuration = plans["configurations"][kind]
        if channels:
            dataset["channel_names"] = dict(enumerate(channels))
            facts = plans["foreground_intensity_properties_per_channel"]["0"]
            plans["foreground_intensity_properties_per_channel"] = {
                str(c): {**facts, "mean": facts["mean"] + 30 * c} for c in range(len(channels))
            }
            configuration["normalization_schemes"] = ["CTNormalization"] * len(channels)
            configuration["use_mask_for_norm"] = [False] * len(channels)
        if edit:
            edit(plans, configuration)
        folder = Path(root) / f"nnUNetTrainer__nnUNetPlans__{kind}"
        folder.mkdir(parents=True)
        (folder / "plans.json").write_text(json.dumps(plans))
        (folder / "dataset.json").write_text(json.dumps(dataset))
        for fold in folds:
            torch.manual_seed(seed + (fold if isinstance(fold, int) else 99))
            with contextlib.redirect_stdout(io.StringIO()):
                made = (trainer or nnUNetTrainer)(
                    {**copy.deepcopy(plans), "continue_training": False},
                    kind,
                    fold,
                    dataset,
                    device=torch.device("cpu"),
                )
                made.network = made.build_network_architecture(
                    made.plans_manager,
                    made.configuration_manager,
                    determine_num_input_channels(made.plans_manager, made.configuration_manager, dataset),
                    made.label_manager.num_segmentation_heads,
                    made.enable_deep_supervision,
                )
                made.optimizer, made.lr_scheduler = made.configure_optimizers()
                made.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
                (folder / f"fold_{fold}").mkdir()
                made.save_checkpoint(str(folder / f"fold_{fold}" / "checkpoint_final.pth"))
        return folder


@pytest.fixture(scope="session")
def make(tmp_path_factory):
    """nnU-Net's own planning on two cases, once."""
    root = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (root / name / DATASET).mkdir(parents=True)
            patch.setenv(f"nnUNet_{name}", str(root / name))
        affine = np.diag([2.0, 2.0, 3.0, 1.0])
        for case in range(2):
            image, labels = blobs((32, 28, 24), seed=case)
            save(root / "raw" / DATASET / "imagesTr" / f"case{case}_0000.nii.gz", image, affine)
            save(root / "raw" / DATASET / "labelsTr" / f"case{case}.nii.gz", labels, affine)
        dataset = {
            "channel_names": {"0": "CT"},
            "labels": LABELS,
            "numTraining": 2,
            "file_ending": ".nii.gz",
        }
        (root / "raw" / DATASET / "dataset.json").write_text(json.dumps(dataset))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            plans = _plan(root, dataset)
        yield Maker(plans, dataset)


def _plan(root, dataset):
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor as Extractor,
    )
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    # its `run` does the same over worker processes, which would only cost time here
    raw = root / "raw" / DATASET
    cases = []
    for case in range(2):
        files = [str(raw / "imagesTr" / f"case{case}_0000.nii.gz")]
        cases.append(Extractor.analyze_case(files, str(raw / "labelsTr" / f"case{case}.nii.gz"), SimpleITKIO))
    pooled = np.concatenate([np.asarray(case[2]) for case in cases], axis=1)[0]
    fingerprint = {
        "spacings": [list(map(float, case[1])) for case in cases],
        "shapes_after_crop": [list(map(int, case[0])) for case in cases],
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": float(pooled.mean()),
                "median": float(np.median(pooled)),
                "std": float(pooled.std()),
                "min": float(pooled.min()),
                "max": float(pooled.max()),
                "percentile_99_5": float(np.percentile(pooled, 99.5)),
                "percentile_00_5": float(np.percentile(pooled, 0.5)),
            }
        },
        "median_relative_size_after_cropping": 1.0,
    }
    (root / "preprocessed" / DATASET / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    plans = ExperimentPlanner(1).plan_experiment()
    plans = json.loads(json.dumps(plans, default=lambda value: value.tolist()))
    # small windows and few filters: the same classes, quick
    for kind, axes in (("3d_fullres", 3), ("2d", 2)):
        configuration = plans["configurations"][kind]
        configuration["patch_size"] = [16] * axes
        arch = configuration["architecture"]["arch_kwargs"]
        arch.update(n_stages=3, features_per_stage=[4, 8, 8], kernel_sizes=[[3] * axes] * 3)
        arch.update(strides=[[1] * axes, [2] * axes, [2] * axes], n_conv_per_stage=[2, 2, 2])
        arch.update(n_conv_per_stage_decoder=[2, 2])
    # as the planner does where whole scans do not fit into a window
    lowres = {"inherits_from": "3d_fullres", "spacing": [5.0, 3.1, 3.3], "next_stage": "3d_cascade_fullres"}
    plans["configurations"]["3d_lowres"] = lowres
    cascade = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    plans["configurations"]["3d_cascade_fullres"] = cascade
    return plans
