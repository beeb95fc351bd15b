"""2-D networks and cascades: whole scans as `nnUNetPredictor`, windows as the official network, refusals."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from umdseg.adapters.lora import Lora, LoraOptions
from umdseg.backbones import load_backbone
from umdseg.data.geometry import Grid, Volume
from umdseg.errors import UserError
from umdseg.inference import label_map, open
from umdseg.vocabulary import Prompt

NAMES = ("liver", "spleen", "kidney_left", "pancreas")
OWN = {"odd thing": "pancreas"}


def predictor(folder, folds, mirroring):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    made = nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
    made.initialize_from_trained_model_folder(str(folder), folds, "checkpoint_final.pth")
    return made


def theirs(folder, file, folds=(0,), mirroring=False, first=None):
    """(X, Y, Z) label map by nnU-Net; `first` is the result folder of a cascade's stage before."""
    with contextlib.redirect_stdout(io.StringIO()):
        made = predictor(folder, folds, mirroring)
        data, properties = made.plans_manager.image_reader_writer_class().read_images([str(file)])
        before = None
        if first is not None:
            early = theirs(first, file, folds, mirroring)
            # in the axes and the type of a label file that nnU-Net reads
            before = early.transpose(2, 1, 0)[None].astype(np.float32)
        return made.predict_single_npy_array(data, properties, before).transpose(2, 1, 0)


def loaded(folder, **options):
    return load_backbone("nnunet", folder=str(folder), names=OWN, **{"mirroring": False, **options})


def ours(folder, file, **options):
    return label_map(open(loaded(folder, **options), file, "ct"), NAMES)


def same(found, expected):
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(found, expected)


@pytest.fixture
def scan(make, tmp_path):
    """Thick slices, another spacing than the plans', a border of zeros, an odd place."""
    image, _ = make.blobs((30, 26, 11), seed=7)
    image[:3] = 0
    image[..., -2:] = 0
    affine = np.diag([-2.6, 2.3, 6.5, 1.0])
    affine[:3, 3] = (41.0, -17.0, 8.0)
    return make.save(tmp_path / "scan_0000.nii.gz", image, affine)


@pytest.fixture
def stages(make, tmp_path):
    """A cascade of two folds and, beside it, its stage before."""
    cascade = make(tmp_path / "m", kind="3d_cascade_fullres", folds=(0, 1))
    return make(tmp_path / "m", kind="3d_lowres", folds=(0, 1), seed=20), cascade


def test_slices_through_a_2d_network(make, tmp_path, scan):
    folder = make(tmp_path / "m", kind="2d", folds=(0, 1))
    same(ours(folder, scan), theirs(folder, scan, (0, 1)))
    same(ours(folder, scan, folds=[1], mirroring=True), theirs(folder, scan, (1,), mirroring=True))


def test_slices_run_along_the_axis_that_the_plans_put_first(make, tmp_path, scan):
    def turn(plans, configuration):
        plans.update(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0])
        plans["original_median_spacing_after_transp"] = [4.0, 3.0, 2.0]

    folder = make(tmp_path / "m", kind="2d", edit=turn)
    same(ours(folder, scan), theirs(folder, scan))
    card = loaded(folder).card
    assert (card.orientation, card.window, card.spacing) == ("RSA", (1, 16, 16), (4.0, 2.0, 2.0))


def test_windows_are_slices_of_the_official_network(make, tmp_path):
    folder = make(tmp_path / "m", kind="2d")
    backbone = loaded(folder)
    net = predictor(folder, (0,), False).network.eval()
    x = torch.randn(2, 1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.stack([net(x[:, :, at]) for at in range(3)], dim=2)
        features = backbone.encode(x)
        torch.testing.assert_close(backbone.dense(features), expected, rtol=0, atol=1e-5)
        alone = backbone.decode(features.sample(1), [Prompt("spleen")])
        odds = torch.logit(torch.softmax(expected[1:].double(), 1))[:, 2:3]
    torch.testing.assert_close(alone.double(), odds, rtol=0, atol=1e-4)
    assert [tuple(level.shape[2:]) for level in features.maps] == [(3, 8, 12), (3, 4, 6), (3, 2, 3)]
    with pytest.raises(UserError, match=r"multiples of \(1, 4, 4\)"):
        backbone.encode(torch.zeros(1, 1, 1, 8, 10))


def test_an_adapter_in_a_2d_network_changes_whole_scans(make, tmp_path, scan):
    backbone = loaded(make(tmp_path / "m", kind="2d"), orientation="RAS")
    before = label_map(open(backbone, scan, "ct"), NAMES)
    Lora(LoraOptions(rank=2)).inject(backbone)
    window = torch.randn(2, 1, *backbone.training_window, generator=torch.Generator().manual_seed(0))
    backbone.decode(backbone.encode(window), [Prompt("liver")]).mean().backward()
    trained = [p for p in backbone.net.parameters() if p.requires_grad]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.3)
    assert (label_map(open(backbone, scan, "ct"), NAMES) != before).any()


def test_a_cascade_goes_on_from_the_stage_before(stages, scan):
    first, cascade = stages
    expected = theirs(cascade, scan, (0, 1), first=first)
    same(ours(cascade, scan), expected)
    mirrored = theirs(cascade, scan, (1,), mirroring=True, first=first)
    same(ours(cascade, scan, folds=[1], mirroring=True), mirrored)


def test_what_the_stage_before_found_matters(stages, scan, make, tmp_path):
    first, cascade = stages
    other = make(tmp_path / "other", kind="3d_lowres", folds=(0, 1), seed=40)
    found = ours(cascade, scan, previous=str(tmp_path / "other"))
    same(found, theirs(cascade, scan, (0, 1), first=other))
    assert (found != ours(cascade, scan)).any()
    hashes = {loaded(cascade, previous=previous).state_sha256 for previous in (None, str(first), str(other))}
    assert len(hashes) == 2


def test_both_stages_see_images_turned_alike(make, tmp_path, scan):
    def reorient(plans, configuration):
        plans["image_reader_writer"] = "NibabelIOWithReorient"

    cascade = make(tmp_path / "m", kind="3d_cascade_fullres", edit=reorient)
    first = make(tmp_path / "m", kind="3d_lowres", seed=20, edit=reorient)
    # the file runs from right to left, nnU-Net's answer from left to right
    same(np.flip(ours(cascade, scan), 0), theirs(cascade, scan, first=first))


def test_a_cascade_of_regions(make, tmp_path, scan):
    labels = {"background": 0, "liver": [1, 2, 3], "spleen": [2, 3], "kidney_left": 3}
    how = {"labels": labels, "regions_class_order": [1, 2, 3]}
    cascade = make(tmp_path / "m", kind="3d_cascade_fullres", **how)
    first = make(tmp_path / "m", kind="3d_lowres", seed=20, **how)
    backbone = load_backbone("nnunet", folder=str(cascade), mirroring=False)
    painted = np.zeros(open(backbone, scan, "ct").native.shape, np.uint8)
    for value, name in enumerate(("liver", "spleen", "kidney_left"), start=1):
        painted[label_map(open(backbone, scan, "ct"), [name]) == 1] = value
    same(painted, theirs(cascade, scan, first=first))


def test_a_cascade_takes_no_windows(stages):
    _, cascade = stages
    backbone = loaded(cascade)
    assert "whole scans only" in backbone.card.weights.note
    for ask in (lambda: backbone.encode(torch.zeros(1, 1, 16, 16, 16)), lambda: backbone.training_window):
        with pytest.raises(UserError, match="is a cascade: on windows it lacks"):
            ask()


def test_the_stage_before_is_where_it_belongs_or_named(stages, make, tmp_path):
    first, cascade = stages
    away = tmp_path / "away" / cascade.name
    shutil.copytree(cascade, away)
    with pytest.raises(UserError, match="earlier network's result") as caught:
        loaded(away)
    assert str(away.with_name(first.name)) in str(caught.value)
    assert loaded(away, previous=str(first)).parts[0].previous[0].folder == first
    with pytest.raises(UserError, match="the stage before the cascade is 3d_cascade_fullres, not 3d_lowres"):
        loaded(cascade, previous=str(cascade))
    with pytest.raises(UserError, match="takes no result of an earlier one"):
        loaded(first, previous=str(first))
    dataset = json.loads((first / "dataset.json").read_text())
    dataset["labels"] = {"background": 0, "odd thing": 1, "liver": 2}
    other = make(tmp_path / "other", kind="3d_lowres", labels=dataset["labels"], folds=(0, 1))
    with pytest.raises(UserError, match="other labels or input channels"):
        loaded(cascade, previous=str(other))


@pytest.mark.parametrize("kind", ["2d", "3d_cascade_fullres"])
def test_the_plan_counts_the_windows_that_run(kind, make, tmp_path, monkeypatch):
    from umdseg.backbones.nnunet import predict as module
    from umdseg.backbones.nnunet.options import NnunetOptions
    from umdseg.preflight.plans.nnunet import NnunetPlan

    folder = make(tmp_path / "m", kind=kind)
    if kind != "2d":
        make(tmp_path / "m", kind="3d_lowres")
    image, _ = make.blobs((22, 26, 9), seed=2)
    volume = Volume(image, Grid((22, 26, 9), np.diag([2.0, 2.0, 7.0, 1.0])))
    ran = []
    real = module._Fold.forward
    monkeypatch.setattr(module._Fold, "forward", lambda self, x: ran.append(x.shape) or real(self, x))
    label_map(open(loaded(folder), volume, "ct"), NAMES)
    options = NnunetOptions(name="nnunet", folder=str(folder))
    settings = SimpleNamespace(model=options, evaluation=SimpleNamespace(overlap=None))
    plan = NnunetPlan(settings, loaded(folder).to("meta"), list(NAMES))
    counted = plan.passes(volume.grid, ["auto"], list(NAMES))
    assert sum(counted.values()) == len(ran)
    assert len(counted) == (1 if kind == "2d" else 2)
