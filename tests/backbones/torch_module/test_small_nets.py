"""Real weights of published small networks through the wrapper."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from umdseg import inference, load_backbone
from umdseg.backbones import Backbone
from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import read_image
from umdseg.errors import UserError
from umdseg.inference.together import open_together

STUDY = Path(__file__).resolve().parents[3] / "experiments/small_nets"
# weights file, class and arguments of each card of the study
NETS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "allconvunet_tcia": (
        "obelisk/allconvunet_tcia_fold1.pth",
        "AllConvUNet",
        {"scale": 4096, "shift": -1024},
    ),
    "obeliskhybrid_tcia": ("obelisk/obeliskhybrid_tcia_fold1.pth", "ObeliskHybridTcia", {}),
    "obeliskhybrid_visceral": ("obelisk/obeliskhybrid_visceral_fold1.pth", "ObeliskHybridVisceral", {}),
    "pnet_petct": ("petct_deepigeos/PNet_model.pt", "PNet", {}),
}


def bring(data: Path, name: str, weights: str | None = None) -> Backbone:
    file, maker, arguments = NETS[name]
    module, card = f"{STUDY}/nets.py:{maker}", f"{STUDY}/{name}.yaml"
    chosen = str(data / "weights" / (weights or file))
    return load_backbone("torch_module", chosen, module=module, card=card, arguments=arguments)


@pytest.mark.parametrize("name", NETS)
def test_published_files_fit_completely_and_those_of_others_do_not(shared_data: Path, name: str) -> None:
    assert not bring(shared_data, name).random_weights
    other = NETS["pnet_petct" if name != "pnet_petct" else "allconvunet_tcia"][0]
    with pytest.raises(UserError, match="belong to another network"):
        bring(shared_data, name, other)


@pytest.mark.parametrize(("codes", "low", "high"), [("LAI", 0.8, 1.0), ("RAS", 0.0, 0.3)])
def test_a_real_network_finds_the_liver_only_in_its_own_orientation(
    shared_data: Path, codes: str, low: float, high: float
) -> None:
    backbone, folder = bring(shared_data, "allconvunet_tcia"), shared_data / "totalsegmentator"
    # 30 slices of liver in one window, drawn larger than in training
    backbone.card = replace(backbone.card, orientation=codes, spacing=(2.6, 2.2, 1.4))
    image, label = read_image(folder / "example_ct_sm.nii.gz"), read_image(folder / "example_seg.nii.gz")
    ids = json.loads((folder / "class_ids.json").read_text())["total"]
    liver = label.array == int(next(number for number, known in ids.items() if known == "liver"))
    names = list(backbone.card.structures)
    found = inference.segment(backbone, image, names, modality="ct") == 1 + names.index("liver")
    dice = 2 * float((found & liver).sum()) / float(found.sum() + liver.sum())
    assert low < dice <= high


def test_the_two_channel_network_takes_ct_and_pet_of_one_person(shared_data: Path) -> None:
    backbone = bring(shared_data, "pnet_petct")
    backbone.card = replace(backbone.card, window=(32, 32, 16))
    folder = shared_data / "sts_pet_ct_mr/nifti/STS_001"
    whole = read_image(folder / "CT_image.nii.gz")
    # a corner is enough to see both channels arrive
    ct = Volume(whole.array[:32, :32, :16], Grid((32, 32, 16), whole.grid.affine))
    pet = read_image(folder / "PET_image.nii.gz")
    answers = []
    for uptake in (pet, Volume(np.zeros_like(pet.array), pet.grid)):
        session = open_together(backbone, {"ct": ct, "pet": uptake})
        answers.append(torch.cat([part for _, part in session.scores(["tumour"])], dim=-1))
    assert answers[0].shape == (1, 32, 32, 16)
    assert not torch.equal(answers[0], answers[1])
