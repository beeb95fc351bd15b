"""What the folder says and what is refused, each with one message."""

from __future__ import annotations

import json
import shutil

import pytest

from umdseg.backbones import load_backbone
from umdseg.errors import UserError


@pytest.fixture(scope="module")
def folder(make, tmp_path_factory):
    return make(tmp_path_factory.mktemp("one"))


def plain(folder, place, **changes):
    """A copy without checkpoints; `plans=` and `dataset=` are functions that change the files' content."""
    place.mkdir(parents=True)
    for name in ("plans", "dataset"):
        content = json.loads((folder / f"{name}.json").read_text())
        changes.get(name, lambda value: None)(content)
        (place / f"{name}.json").write_text(json.dumps(content))
    return place


def test_it_is_found_up_to_two_levels_below(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "a" / "Dataset001_Tiny" / folder.name)
    for root in (tmp_path / "a", tmp_path / "a" / "Dataset001_Tiny"):
        assert load_backbone("nnunet", folder=str(root)).card.spacing == (3.0, 2.0, 2.0)
    shutil.copytree(folder, tmp_path / "a" / "Dataset002_Other" / folder.name)
    with pytest.raises(UserError, match="holds 2 nnU-Net models: Dataset001_Tiny"):
        load_backbone("nnunet", folder=str(tmp_path / "a"))
    with pytest.raises(UserError, match="holds no nnU-Net model"):
        load_backbone("nnunet", folder=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"model\.folder"):
        load_backbone("nnunet")


def test_the_card_is_what_the_plans_say(folder, make):
    card = load_backbone("nnunet", folder=str(folder)).card
    facts = make.plans["foreground_intensity_properties_per_channel"]["0"]
    # (z, y, x) of an image in RAS runs to superior, anterior, right
    assert (card.orientation, card.spacing, card.window) == ("SAR", (3.0, 2.0, 2.0), (16, 16, 16))
    assert (card.divisor, card.overlap, card.output) == (4, 0.5, "softmax")
    scheme = card.intensity["ct"]
    assert (scheme.kind, scheme.low, scheme.high) == (
        "standardise",
        facts["percentile_00_5"],
        facts["percentile_99_5"],
    )
    assert (scheme.mean, scheme.std) == (facts["mean"], facts["std"])
    assert card.trained_on == ("ct",)
    assert "hash not verified" in card.weights.note


def test_labels_that_are_no_structures_are_listed_not_guessed(folder):
    backbone = load_backbone("nnunet", folder=str(folder))
    assert backbone.card.structures == {"liver": 1, "spleen": 2, "kidney_left": 3}
    assert "odd thing" in backbone.card.weights.note
    # they still compete
    assert backbone.parts[0].heads == 5
    named = load_backbone("nnunet", folder=str(folder), names={"odd thing": "Left adrenal gland"})
    assert named.card.structures["adrenal_gland_left"] == 4


def test_halves_give_the_whole(folder, tmp_path):
    labels = {"background": 0, "right kidney": 2, "kidney_left": 1, "ignore": 3}
    place = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    made = plain(folder, place, dataset=lambda d: d.update(labels=labels))
    card = load_backbone("nnunet", "random", folder=str(made)).card
    assert card.structures == {"kidney_left": 1, "kidney_right": 2}
    assert card.groups == {"kidney": ("kidney_left", "kidney_right")}


@pytest.mark.parametrize(
    ("channel", "modality"),
    [("CT", ("ct",)), ("T1w", ("mr",)), ("FDG-PET", ("pet",)), ("MRI", ("mr",)), ("noNorm", ())],
)
def test_channels_tell_the_modality(folder, tmp_path, channel, modality):
    place = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    made = plain(folder, place, dataset=lambda d: d.update(channel_names={"0": channel}))
    assert load_backbone("nnunet", "random", folder=str(made)).card.trained_on == modality
    told = load_backbone("nnunet", "random", folder=str(made), channels=["pet"])
    assert told.card.trained_on == ("pet",)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("nnUNetTrainer__nnUNetPlans__3d_half", {}, "no configuration '3d_half'"),
        ("anything", {}, "does not tell the configuration"),
        (
            "nnUNetTrainer__nnUNetPlans__3d_fullres",
            {"dataset": lambda d: d.update(labels={"background": 0, "zebra": 1})},
            "none of the labels is a known structure",
        ),
        (
            "nnUNetTrainer__nnUNetPlans__3d_fullres",
            {"plans": lambda p: p["configurations"]["3d_fullres"].update(previous_stage="3d_lowres")},
            "earlier network's result",
        ),
        (
            "nnUNetTrainer__nnUNetPlans__3d_fullres",
            {"plans": lambda p: p["configurations"]["3d_fullres"].update(normalization_schemes=["Own"])},
            "unknown normalisation",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(folder, tmp_path, name, changes, words):
    made = plain(folder, tmp_path / name, **changes)
    with pytest.raises(UserError, match=words):
        load_backbone("nnunet", "random", folder=str(made))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folds": [3]}, "unknown fold '3'"),
        ({"folds": []}, "no folds are chosen"),
        ({"checkpoint": "checkpoint_best.pth"}, "did you mean: model.checkpoint=checkpoint_final.pth"),
        ({"orientation": "RAX"}, "no orientation"),
        ({"channels": ["xray"]}, "unknown modality"),
        ({"channels": ["ct", "pet"]}, "1 input channels"),
        ({"names": {"odd": "liver"}}, "did you mean: odd thing"),
        ({"names": {"odd thing": "livr"}}, "did you mean: liver"),
        ({"fold": [0]}, "option of model nnunet"),
    ],
)
def test_wrong_options_are_refused(folder, options, words):
    with pytest.raises(UserError, match=words):
        load_backbone("nnunet", folder=str(folder), **options)


def test_damaged_json_is_named(folder, tmp_path):
    made = plain(folder, tmp_path / folder.name)
    (made / "plans.json").write_text("{")
    with pytest.raises(UserError, match=r"plans\.json"):
        load_backbone("nnunet", "random", folder=str(made))
