"""Cards and class tables against published facts, and adapters on their targets."""

from __future__ import annotations

import re

import pytest
import torch

from umdseg import anatomy, registry
from umdseg.adapters import build, disable, unload
from umdseg.adapters.full import FullOptions
from umdseg.adapters.lora import LoraOptions
from umdseg.adapters.none import NoAdapter
from umdseg.backbones.monai_cnn import models
from umdseg.vocabulary import Prompt

PRETRAINED = ["ctfm_wholebody", "ctfm", "monai_wholebody", "monai_wholebody_fast", "suprem", "swinunetr_btcv",
              "swinunetr_ssl", "swinunetr_suprem", "swinunetr_voco", "swinunetr_voco_ssl"]  # fmt: skip
OUTPUTS = {"ctfm_wholebody": 118, "monai_wholebody": 105, "monai_wholebody_fast": 105, "suprem": 32,
           "swinunetr_btcv": 14, "swinunetr_voco": 21}  # fmt: skip


@pytest.mark.parametrize("name", [*PRETRAINED, "unet", "resenc_unet"])
def test_a_card_describes_the_network_it_belongs_to(small, name: str) -> None:
    model = small(name)
    card, listing = model.card, registry.resolve("model", name).listing()
    assert card.name == listing.card.name == name
    modules = dict(model.net.named_modules())
    targets = [m for key, m in modules.items() if re.fullmatch(card.adapter_targets, key)]
    assert targets
    assert all(isinstance(m, torch.nn.Linear) or tuple(m.kernel_size) == (3, 3, 3) for m in targets)
    assert modules[card.stem].in_channels == 1
    assert model._last().out_channels == OUTPUTS.get(name, 1)
    assert max(card.structures.values(), default=0) < model._last().out_channels == card.new_rows[0]
    assert modules[card.class_rows].num_embeddings == card.new_rows[-1] + 1
    assert 0 not in card.structures.values() or card.output == "sigmoid"


@pytest.mark.parametrize(
    ("scheme", "size", "published"),
    [
        # metadata.json of the bundles, SuPreM's utils.py
        (
            "totalsegmentator_v1",
            104,
            "spleen 1 liver 5 pancreas 10 vertebrae_L5 18 vertebrae_C1 41 esophagus 42 pulmonary_artery 49 "
            "brain 50 colon 57 rib_left_1 58 rib_right_12 81 face 93 urinary_bladder 104",
        ),
        (
            "btcv",
            13,
            "spleen 1 kidney_right 2 kidney_left 3 gallbladder 4 esophagus 5 liver 6 stomach 7 aorta 8 "
            "inferior_vena_cava 9 pancreas 11 adrenal_gland_right 12 adrenal_gland_left 13",
        ),
        (
            "suprem",
            24,
            "spleen 1 liver 6 duodenum 14 lung_right 16 lung_left 17 colon 18 rectum 20 urinary_bladder 21 "
            "femoral_head_left 23 celiac_trunk 25",
        ),
    ],
)
def test_class_tables_are_the_published_ones(scheme: str, size: int, published: str) -> None:
    ids, words = anatomy.ids(scheme), published.split()
    known = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    assert len(ids) == len(set(ids.values())) == size
    assert {name: ids[name] for name in known} == known
    assert max(ids.values()) == max(known.values())


def test_version_1_of_totalsegmentator_differs_from_version_2_as_published() -> None:
    # resources/improvements_in_v2.md of TotalSegmentator: classes removed and added
    first, second = set(anatomy.ids("totalsegmentator_v1")), set(anatomy.ids("totalsegmentator"))
    assert {"face", "pulmonary_artery", "heart_myocardium", "heart_atrium_left"} <= first - second
    assert {"skull", "sternum", "spinal_cord", "prostate", "thyroid_gland", "heart"} <= second - first


def test_ct_fm_takes_the_scan_as_it_is() -> None:
    card = models.ctfm_wholebody.listing().card
    assert (card.orientation, card.spacing, card.window) == ("SPL", None, (96, 160, 160))
    assert len(card.structures) == 117
    assert {"lung", "kidney"} <= card.groups.keys()


@pytest.mark.parametrize("name", ["ctfm_wholebody", "swinunetr_btcv", "suprem"])
@pytest.mark.parametrize("options", [LoraOptions(rank=2), FullOptions(), NoAdapter.Options(name="none")])
def test_adapters_train_and_leave_the_base_bit_for_bit(small, name: str, options) -> None:
    x = torch.rand(1, 1, 32, 32, 64, generator=torch.Generator().manual_seed(0))
    asked = [Prompt("liver"), Prompt("node")]
    model = small(name)
    with torch.no_grad():
        expected = model.decode(model.encode(x), asked[:1])
    state = {key: value.clone() for key, value in model.net.state_dict().items()}
    adapter = build(options)
    adapter.inject(model, model.add_structures(["node"]))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    model.train()
    (model.decode(model.encode(x), asked) - 1).square().mean().backward()
    optimizer.step()
    model.eval()
    with torch.no_grad():
        moved = model.decode(model.encode(x), asked)
        assert torch.equal(moved[:, :1], expected) == (options.name == "none")
        with disable(model):
            assert torch.equal(model.decode(model.encode(x), asked[:1]), expected)
    unload(model)
    after = model.net.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[key], state[key]) for key in state)
