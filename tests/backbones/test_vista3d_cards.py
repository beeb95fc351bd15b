"""The published weights' facts, and preprocessing as in the authors' bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.apps.vista3d.transforms import VistaPreTransformd
from monai.data import MetaTensor
from monai.networks import nets
from monai.transforms import (
    Compose,
    CropForegroundd,
    Orientationd,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
)

from umdseg import load_backbone
from umdseg.backbones.vista3d import PARAMETERS, PARAMETERS_TINY, Vista3d, tiny_network
from umdseg.backbones.vista3d_cards import nv_segment_ctmr_card, vista3d_card
from umdseg.data.geometry import Grid, Volume
from umdseg.data.preprocess import prepare_image
from umdseg.errors import UserError
from umdseg.inference import preprocessing
from umdseg.vocabulary import MODALITIES, Prompt

UNDEFINED = {16, 129, 130, 131, 133, *range(137, 146), 162}


@pytest.fixture
def ctmr(monkeypatch: pytest.MonkeyPatch) -> Vista3d:
    monkeypatch.setattr(nets, "vista3d132", tiny_network)
    torch.manual_seed(0)
    return load_backbone("nv_segment_ctmr", "random")


def test_the_ctmr_card_offers_what_is_defined(shared_reference: Path) -> None:
    card = nv_segment_ctmr_card()
    table = json.loads((shared_reference / "labels" / "nv_segment_ctmr.label_dict.json").read_text())
    published = {entry["index"] for name, entry in table.items() if "deprecated" not in name}
    assert set(card.structures.values()) == published - {2, 20, 21}
    assert not UNDEFINED & set(card.structures.values())
    indices = {whole: {card.index(part) for part in parts} for whole, parts in card.groups.items()}
    assert indices == {
        "kidney": {5, 14},
        "lung": {28, 29, 30, 31, 32},
        "bone": {*range(33, 57), *range(63, 98), 114, 120, 122},
    }


def test_the_ctmr_card_says_how_the_authors_run_it() -> None:
    card = nv_segment_ctmr_card()
    assert card.window == (192, 192, 128)
    assert card.spacing == (1.5, 1.5, 1.5)
    assert card.prompts == ("auto",)
    assert card.trained_on == ("ct", "mr")
    assert card.weights.commercial is False
    # 0.25 and constant are MONAI's defaults, which the bundle leaves as they are
    assert (card.overlap, card.blending) == (0.25, "constant")
    assert (vista3d_card().overlap, vista3d_card().blending) == (0.25, "constant")
    # rows that a class has are not free for new structures
    assert min(card.new_rows) == 346
    assert max(card.new_rows) == 511


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("name", ["vista3d", "nv_segment_ctmr"])
def test_preprocessing_is_the_bundles(name: str, modality: str) -> None:
    # at the network's spacing already, so that only crop, scaling and orientation are compared
    rng = np.random.default_rng(3)
    array = np.full((40, 44, 36), -1000.0, np.float32)
    array[6:30, 9:40, 4:30] = rng.normal(60, 300, (24, 31, 26))
    affine = np.array([[0, -1.5, 0, 20.0], [-1.5, 0, 0, 5], [0, 0, 1.5, -9], [0, 0, 0, 1]])
    card = {"vista3d": vista3d_card, "nv_segment_ctmr": nv_segment_ctmr_card}[name]()
    if name == "vista3d" and modality == "ct":
        scale = ScaleIntensityRanged("image", -963.8247715525971, 1053.678477684517, 0, 1, clip=True)
    else:
        scale = ScaleIntensityRangePercentilesd("image", 1, 99, 0, 1, clip=True)
    crop = CropForegroundd("image", "image", margin=10, allow_smaller=True)
    bundle = Compose([crop, scale, Orientationd("image", "RAS", labels=None)])
    expected = bundle({"image": MetaTensor(torch.from_numpy(array)[None], torch.from_numpy(affine))})["image"]
    found = prepare_image(
        Volume(array, Grid(array.shape, affine)), modality, preprocessing(card, (16, 16, 16))
    )
    torch.testing.assert_close(found.image, expected.as_tensor(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.grid.affine, expected.affine.numpy(), atol=1e-5)


@torch.no_grad()
def test_ctmr_answers_by_class_alone(ctmr: Vista3d) -> None:
    x = torch.rand(1, 1, 16, 16, 32, generator=torch.Generator().manual_seed(1))
    features = ctmr.encode(x)
    names = ["liver", "hippocampus_left", "kidney"]
    found = ctmr.decode(features, [Prompt(name) for name in names])
    own = [ctmr.card.index("liver"), ctmr.card.index("hippocampus_left"), 5, 14]
    logits = ctmr.net(x, class_vector=torch.tensor(own)[:, None])[:, 0]
    expected = torch.stack([logits[0], logits[1], torch.maximum(logits[2], logits[3])])
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-5)
    for kind in ("point", "clicks", "auto_point"):
        with pytest.raises(UserError, match=f"no '{kind}' prompts"):
            ctmr.decode(features, [Prompt("liver", kind, ((1.0, 1.0, 1.0),), (1,))])
    with pytest.raises(UserError, match="unknown structure"):
        ctmr.decode(features, [Prompt("fibula_deprecated")])


@pytest.mark.parametrize("parity", [False, True])
def test_special_clicks_are_the_networks_own_or_the_bundles(
    parity: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nets, "vista3d132", tiny_network)
    model = load_backbone("vista3d", "random", bundle_parity=parity)
    bundle, signs = VistaPreTransformd("image"), torch.tensor([1, 0])
    differ = set()
    for structure, index in model.card.structures.items():
        own = model.net.convert_point_label(torch.tensor([[1, 0]]), [index])[0].tolist()
        theirs = bundle({"label_prompt": [index], "point_labels": [1, 0]})["point_labels"]
        assert model._labels(structure, signs).tolist() == (theirs if parity else own), structure
        differ |= {index} if own != theirs else set()
    # lung and pancreas tumour, airway, bone lesion; two lung lobes, kidney cyst: models that mix them up
    assert {23, 24, 57, 128, 28, 29} <= differ


def test_numbers_of_parameters_are_those_of_the_networks() -> None:
    with torch.device("meta"):
        full = nets.vista3d132()
    assert sum(p.numel() for p in full.parameters()) == PARAMETERS
    assert sum(p.numel() for p in tiny_network().parameters()) == PARAMETERS_TINY
