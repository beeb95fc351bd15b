"""A user's own module: its card, its logits in the shared windows, its mistakes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from umdseg import inference, load_backbone
from umdseg.backbones import Backbone
from umdseg.backbones.card import Card
from umdseg.backbones.torch_module.card_file import read_card
from umdseg.data.geometry import Grid, Volume
from umdseg.errors import UserError
from umdseg.inference.together import open_together
from umdseg.vocabulary import Prompt

MODULE = '''
import torch
from torch import nn


class Bands(nn.Module):
    """Logits that are known: one per interval of the input, and what a norm layer with counters adds: 0."""

    def __init__(self, edges, inputs=1, deep=False):
        super().__init__()
        self.register_buffer("edges", torch.tensor([float(e) for e in edges]))
        self.conv = nn.Conv3d(inputs, 2, 3, padding=1)
        self.norm = nn.BatchNorm3d(2)
        self.deep = deep
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x):
        nothing = self.norm(self.conv(x)).sum(1, keepdim=True)
        high = torch.cat([x.sum(1, keepdim=True) - e for e in self.edges], 1) + nothing
        return (high, high[..., ::2, ::2, ::2]) if self.deep else high


def not_a_module(edges):
    return list(edges)


class Wrong(nn.Module):
    def forward(self, x):
        return x[..., ::2, :, :]
'''
CARD: dict[str, Any] = {
    "orientation": "LPS",
    "spacing": None,
    "window": [8, 8, 8],
    "divisor": 4,
    "intensity": {"ct": {"kind": "window", "low": 0, "high": 100, "to": [0, 100]}},
    "output": "sigmoid",
    "structures": {"liver": 0, "spleen": 1},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MODULE)
    write(tmp_path, CARD)
    return tmp_path


def write(place: Path, card: dict[str, Any]) -> str:
    (place / "card.yaml").write_text(yaml.safe_dump(card))
    return str(place / "card.yaml")


def load(place: Path, name: str = "Bands", **arguments: Any) -> Backbone:
    given = {"module": f"{place}/mine.py:{name}", "card": f"{place}/card.yaml"}
    return load_backbone("torch_module", "random", arguments=arguments, **given)


def flipped_scan() -> Volume:
    """(10, 9, 12) of random HU on a grid with two axes flipped."""
    values = np.random.default_rng(0).uniform(0, 100, (10, 9, 12)).astype(np.float32)
    return Volume(values, Grid((10, 9, 12), np.diag([-2.0, 3.0, -4.0, 1.0])))


def test_sigmoid_logits_come_back_voxel_by_voxel_on_the_scans_own_grid(place: Path) -> None:
    backbone, scan = load(place, edges=[30, 70]), flipped_scan()
    session = inference.open(backbone, scan, "ct")
    logits = torch.cat([part for _, part in session.scores(["spleen", "liver"])], dim=-1)
    expected = torch.stack([torch.from_numpy(scan.array) - 70, torch.from_numpy(scan.array) - 30])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-3)


def test_softmax_classes_compete_as_argmax_says(place: Path) -> None:
    write(place, {**CARD, "output": "softmax", "structures": {"liver": 1, "spleen": 2}})
    backbone, scan = load(place, edges=[0, -5, 20]), flipped_scan()
    # the class with the lowest edge has the highest logit everywhere
    assert (inference.segment(backbone, scan, ["spleen", "liver"], modality="ct") == 2).all()
    features = backbone.encode(torch.rand(1, 1, 8, 8, 8))
    odds = backbone.decode(features, [Prompt("liver"), Prompt("spleen")]).sigmoid()
    expected = backbone.dense(features).softmax(dim=1)[:, 1:]
    torch.testing.assert_close(odds, expected, rtol=0, atol=1e-5)


def test_two_channels_of_one_person_meet_on_the_first_ones_grid(place: Path) -> None:
    both = {**CARD["intensity"], "pet": {"kind": "window", "low": 0, "high": 10, "to": [0, 1000]}}
    write(place, {**CARD, "channels": ["ct", "pet"], "intensity": both, "structures": {"tumour": 0}})
    backbone, ct = load(place, edges=[150], inputs=2), flipped_scan()
    values = np.random.default_rng(1).uniform(0, 10, ct.array.shape).astype(np.float32)
    # the same voxels stored in another order
    pet = Volume(values[::-1], Grid(ct.grid.shape, ct.grid.affine @ flip(ct.grid.shape[0])))
    session = open_together(backbone, {"pet": pet, "ct": ct})
    logits = torch.cat([part for _, part in session.scores(["tumour"])], dim=-1)[0]
    expected = torch.from_numpy(ct.array + 100 * values) - 150
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-3)
    with pytest.raises(UserError, match="ct and pet of one person together"):
        inference.open(backbone, ct, "ct")
    with pytest.raises(UserError, match="exactly ct and pet"):
        open_together(backbone, {"ct": ct})


def flip(count: int) -> np.ndarray:
    matrix = np.diag([-1.0, 1.0, 1.0, 1.0])
    matrix[0, 3] = count - 1
    return matrix


def test_what_the_card_leaves_open_is_found_in_the_module(place: Path) -> None:
    backbone = load(place, edges=[1, 2], deep=True)
    assert backbone.card.name == "card"
    assert backbone.card.stem == "conv"
    assert backbone.card.adapter_targets == "conv"
    assert backbone.card.trained_on == ("ct",)
    assert backbone.has_dense
    assert backbone.random_weights
    features = backbone.encode(torch.rand(2, 1, 4, 4, 8))
    rows = backbone.class_vectors(["spleen", "liver"])
    dense = torch.einsum("kd,bdxyz->bkxyz", rows, backbone.dense(features))
    assert torch.equal(dense, backbone.decode(features, [Prompt("spleen"), Prompt("liver")]))


def test_every_field_of_a_card_can_be_written(place: Path) -> None:
    card = {
        **CARD,
        "name": "mine",
        "weights": {"source": "someone/model", "file": "m.pt", "sha256": "0" * 64, "licence": "MIT"},
        "crop": {"above": -500, "stage": "before", "margin": 3},
        "trained_on": ["ct", "mr"],
        "prompts": ["auto"],
        "prompt_enters": "none",
        "groups": {"kidney": ["liver", "spleen"]},
        "special": [1],
        "class_rows": "rows",
        "new_rows": [5, 6],
        "last_supported": 4,
        "overlap": 0,
        "blending": "constant",
        "adapter_targets": "conv",
        "stem": "conv",
        "citation": "me",
        "scratch": False,
        "head": "conv",
        "prompt_parameters": "rows",
        "slicewise": False,
        "fixed_window": False,
    }
    assert set(card) >= {spec.name for spec in fields(Card)}
    found = read_card(write(place, card)).card
    assert found.crop is not None
    assert (found.crop.above, found.overlap, found.blending) == (-500.0, 0.0, "constant")
    assert found.weights.licence == "MIT"
    assert found.groups == {"kidney": ("liver", "spleen")}
    assert isinstance(found.window, tuple)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windw": [8, 8, 8]}, "did you mean: window"),
        ({"window": [8, 8]}, "list of 3: a whole number"),
        ({"window": [8, 8, 6]}, "multiples of the divisor, 4"),
        ({"spacing": ["1", 1, 1]}, "'1' does not fit"),
        ({"spacing": True}, "a list of 3: a number"),
        ({"output": "sofmax"}, "did you mean: softmax"),
        ({"output": "mask"}, "cannot be blended"),
        ({"output": "softmax"}, "from 1 on"),
        ({"intensity": {"cct": {"kind": "zscore"}}}, "did you mean: ct"),
        ({"intensity": {"ct": {"kind": "window", "lo": 0}}}, "unknown field 'lo'"),
        ({"intensity": {"ct": {"kind": "windo"}}}, "did you mean: window"),
        ({"intensity": {"ct": {}}}, "'kind' is missing"),
        ({"structures": {"livr": 0}}, "did you mean: liver"),
        ({"structures": {"liver": 0, "spleen": 0}}, "every channel once"),
        ({"structures": {"liver": 0.5}}, "a whole number"),
        ({"channels": ["ct", "pet"]}, "no intensity for channel 'pet'"),
        ({"groups": {"kidney": ["liver", "splen"]}}, "did you mean: spleen"),
        ({"prompts": ["point"]}, "asked by class"),
        ({"weights": {"license": "MIT"}}, "did you mean: licence"),
    ],
)
def test_mistakes_in_a_card_are_named_with_the_file(
    place: Path, change: dict[str, Any], message: str
) -> None:
    path = write(place, {**CARD, **change})
    with pytest.raises(UserError, match=message) as caught:
        read_card(path)
    assert path in str(caught.value.where)


@pytest.mark.parametrize("missing", ["spacing", "window", "intensity", "structures"])
def test_what_only_the_user_knows_must_be_said(place: Path, missing: str) -> None:
    with pytest.raises(UserError, match=f"'{missing}' is missing"):
        read_card(write(place, {key: value for key, value in CARD.items() if key != missing}))


def test_mistakes_about_the_module_are_named(place: Path) -> None:
    with pytest.raises(UserError, match="did you mean: Bands"):
        load(place, "Band")
    with pytest.raises(UserError, match="missing a required argument: 'edges'"):
        load(place)
    with pytest.raises(UserError, match="got an unexpected keyword argument 'edge'"):
        load(place, edges=[1], edge=[1])
    with pytest.raises(UserError, match="made a list"):
        load(place, "not_a_module", edges=[1])
    card = str(place / "card.yaml")
    for module, message in (
        (None, "no torch module is named"),
        ("mine", "names no class"),
        ("no_such_package.nets:Net", "no module named 'no_such_package'"),
        (f"{place}/other.py:Net", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            load_backbone("torch_module", "random", module=module, card=card)
    with pytest.raises(UserError, match="no card is named"):
        load_backbone("torch_module", "random", module=f"{place}/mine.py:Bands")
    with pytest.raises(UserError, match="no weights are published"):
        load_backbone("torch_module", module=f"{place}/mine.py:Bands", card=card, arguments={"edges": [1]})


def test_answers_that_are_no_logits_are_refused(place: Path) -> None:
    with pytest.raises(UserError, match="tensor of shape"):
        load(place, "Wrong").encode(torch.zeros(1, 1, 8, 8, 8))
    with pytest.raises(UserError, match="with 1 channels"):
        load(place, edges=[1]).encode(torch.zeros(1, 1, 8, 8, 8))
    with pytest.raises(UserError, match="multiples of 4"):
        load(place, edges=[1, 2]).encode(torch.zeros(1, 1, 8, 8, 6))
    backbone = load(place, edges=[1, 2])
    features = backbone.encode(torch.zeros(1, 1, 8, 8, 8))
    with pytest.raises(UserError, match="no 'point' prompts"):
        backbone.decode(features, [Prompt("liver", "point")])
    with pytest.raises(UserError, match="cannot learn new structures"):
        load(place, edges=[1, 2]).add_structures(["tumour"])


def test_weights_load_strictly_also_from_before_torch_041(place: Path) -> None:
    state = load(place, edges=[1, 2]).net.state_dict()
    state["conv.bias"] += 1
    # torch before 0.4.1 had no counters, and files were plain pickles
    del state["norm.num_batches_tracked"]
    torch.save(state, place / "old.pth", _use_new_zipfile_serialization=False)
    given = {"module": f"{place}/mine.py:Bands", "card": f"{place}/card.yaml", "arguments": {"edges": [1, 2]}}
    loaded = load_backbone("torch_module", str(place / "old.pth"), **given)
    assert not loaded.random_weights
    assert loaded.net.get_parameter("conv.bias").tolist() == [1, 1]
    del state["norm.running_mean"]
    torch.save(state, place / "short.pth")
    with pytest.raises(UserError, match=r"missing norm\.running_mean"):
        load_backbone("torch_module", str(place / "short.pth"), **given)


def test_it_can_be_chosen_on_the_command_line(place: Path) -> None:
    from umdseg.config.check import check

    overrides = ["model=torch_module", f"model.module={place}/mine.py:Bands", f"model.card={place}/card.yaml",
                 "model.arguments={edges:[1,2],deep:true}", "adapter=none"]  # fmt: skip
    settings = check("evaluate", overrides)
    assert settings.model.arguments == {"edges": [1, 2], "deep": True}  # type: ignore[attr-defined]
