"""The network itself: what `encode` and `decode` give, its names, what loading refuses, how adapters take."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from umdseg import adapters
from umdseg.adapters.lora import Lora, LoraOptions
from umdseg.backbones import load_backbone
from umdseg.errors import UserError
from umdseg.inference import label_map, open
from umdseg.vocabulary import Prompt

NAMES = ["liver", "spleen", "kidney_left"]


@pytest.fixture(scope="module")
def folder(make, tmp_path_factory):
    return make(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def residual(make, tmp_path_factory):
    def edit(plans, configuration):
        architecture = configuration["architecture"]
        name = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
        architecture["network_class_name"] = name
        kwargs = architecture["arch_kwargs"]
        kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")

    return make(tmp_path_factory.mktemp("residual"), edit=edit)


def checkpoint(folder):
    return folder / "fold_0" / "checkpoint_final.pth"


def official(folder):
    """nnU-Net's own network with the checkpoint's tensors, as its predictor makes it."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    return predictor.network.eval()


def window(backbone, batch=2):
    return torch.randn(batch, 1, 8, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["folder", "residual"])
def test_logits_are_the_official_networks(kind, request):
    made = request.getfixturevalue(kind)
    backbone, net = load_backbone("nnunet", folder=str(made)), official(made)
    x = window(backbone)
    with torch.no_grad():
        features = backbone.encode(x)
        expected = net(x)
        assert torch.equal(backbone.dense(features), expected)
        odds = torch.logit(torch.softmax(expected.double(), 1))
        logits = backbone.decode(features, [Prompt(name) for name in NAMES])
    torch.testing.assert_close(logits.double(), odds[:, [1, 2, 3]], rtol=0, atol=1e-4)
    assert backbone.random_weights is False


@pytest.mark.parametrize("kind", ["folder", "residual"])
def test_every_tensor_has_one_name_and_a_gradient(kind, request):
    backbone = load_backbone("nnunet", folder=str(request.getfixturevalue(kind)))
    net = official(request.getfixturevalue(kind))
    state = backbone.net.state_dict()
    # as published: up to four names a tensor
    assert len(net.state_dict()) > len(state) == len(list(net.parameters()))
    assert {name for name, _ in backbone.net.named_parameters()} == set(state)
    backbone.decode(backbone.encode(window(backbone)), [Prompt("liver")]).sum().backward()
    without = [name for name, p in backbone.net.named_parameters() if p.grad is None]
    # heads of lower resolutions serve only deep supervision
    assert all(name.startswith("decoder.seg_layers.0.") for name in without)


@pytest.mark.parametrize("kind", ["folder", "residual"])
def test_the_cards_names_are_there(kind, request):
    backbone = load_backbone("nnunet", folder=str(request.getfixturevalue(kind)))
    modules = dict(backbone.net.named_modules())
    targets = [m for name, m in modules.items() if re.fullmatch(backbone.card.adapter_targets, name)]
    blocks = [m for m in modules.values() if isinstance(m, torch.nn.Conv3d) and m.kernel_size == (3, 3, 3)]
    # all 3x3x3 convolutions but a residual encoder's stem
    assert len(blocks) - len(targets) == (1 if kind == "residual" else 0)
    assert modules[backbone.card.stem].in_channels == 1


def test_lora_takes_effect_in_windows_and_in_whole_scans(folder, make, tmp_path):
    image, _ = make.blobs((20, 18, 17), seed=2)
    scan = make.save(tmp_path / "scan.nii.gz", image, np.diag([2.0, 2.0, 3.0, 1.0]))
    backbone = load_backbone("nnunet", folder=str(folder), mirroring=False, orientation="RAS")
    before = label_map(open(backbone, scan, "ct"), NAMES)
    Lora(LoraOptions(rank=2)).inject(backbone)
    assert (label_map(open(backbone, scan, "ct"), NAMES) == before).all()
    loss = backbone.decode(backbone.encode(window(backbone)), [Prompt("liver")]).mean()
    loss.backward()
    trained = [p for p in backbone.net.parameters() if p.requires_grad]
    assert trained
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.3)
    adapted = label_map(open(backbone, scan, "ct"), NAMES)
    assert (adapted != before).any()
    adapters.merge(backbone)
    # a merged adapter is not forgotten where the folder has more folds
    backbone.parts[0].states.append(backbone.parts[0].states[0])
    merged = label_map(open(backbone, scan, "ct"), NAMES)
    assert (merged == adapted).mean() > 0.999


def damaged(folder, tmp_path, change):
    """A copy of the checkpoint after `change(checkpoint)`."""
    raw = torch.load(checkpoint(folder), weights_only=False)
    raw["network_weights"] = dict(raw["network_weights"])
    change(raw)
    torch.save(raw, tmp_path / "changed.pth")
    return str(tmp_path / "changed.pth")


def without(key):
    def change(raw):
        raw["network_weights"] = {k: v for k, v in raw["network_weights"].items() if key not in k}

    return change


def two_values(raw):
    key = "encoder.stages.0.0.convs.0.all_modules.0.weight"
    raw["network_weights"][key] = raw["network_weights"][key] + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("stages.1.0.convs.1."), "belong to another network"),
        (lambda raw: raw["network_weights"].update(extra=torch.zeros(1)), "unexpected extra"),
        (two_values, "two values for one tensor"),
        (lambda raw: raw.pop("trainer_name"), "not a checkpoint of nnU-Net v2"),
        (lambda raw: raw.update(logging={"run": print}), "pickled code"),
    ],
)
def test_wrong_checkpoints_are_refused(folder, tmp_path, change, words):
    file = damaged(folder, tmp_path, change)
    with pytest.raises(UserError, match=words):
        load_backbone("nnunet", file, folder=str(folder))


def test_one_name_of_each_tensor_is_enough(folder, tmp_path):
    """Tools that drop repeated tensors keep one of the names, whichever."""

    def last_names(raw):
        kept = {value.data_ptr(): key for key, value in raw["network_weights"].items()}
        raw["network_weights"] = {key: raw["network_weights"][key] for key in kept.values()}

    file = damaged(folder, tmp_path, last_names)
    lean, full = (
        load_backbone("nnunet", file, folder=str(folder)),
        load_backbone("nnunet", folder=str(folder)),
    )
    assert lean.state_sha256 == full.state_sha256
    assert lean.weights_sha256 != full.weights_sha256


def test_random_weights_need_only_the_plans(folder, tmp_path):
    for name in ("plans.json", "dataset.json"):
        place = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres" / name
        place.parent.mkdir(exist_ok=True)
        place.write_text((folder / name).read_text())
    backbone = load_backbone("nnunet", "random", folder=str(tmp_path))
    assert backbone.random_weights is True
    assert backbone.weights_sha256 is None
    assert set(backbone.card.structures) == set(NAMES)


def test_windows_that_do_not_fit_are_refused(folder):
    backbone = load_backbone("nnunet", folder=str(folder))
    for bad in (torch.zeros(1, 1, 9, 8, 8), torch.zeros(1, 2, 8, 8, 8)):
        with pytest.raises(UserError, match="multiples of"):
            backbone.encode(bad)
    with pytest.raises(UserError, match="takes no 'point' prompts"):
        backbone.decode(backbone.encode(window(backbone)), [Prompt("liver", "point", ((0, 0, 0),), (1,))])
    with pytest.raises(UserError, match="cannot learn new structures"):
        backbone.add_structures(["liver", "something_new"])
