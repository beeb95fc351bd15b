"""Validation patches are paired and always the same; balanced structures; who there is to validate on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from umdseg.backbones.card import Intensity
from umdseg.data.datamodule import PairedDataModule
from umdseg.data.preprocess import Preprocessing
from umdseg.data.sources.manifest import ManifestOptions, ManifestSource
from umdseg.errors import UserError

WINDOW = Intensity("window", -1000.0, 1000.0)
CARD = Preprocessing((4.0, 4.0, 4.0), dict.fromkeys(("ct", "pet", "mr"), WINDOW), None, (12, 12, 8))
SUBJECTS = {"A": ("ct", "pet"), "B": ("pet", "mr"), "V": ("ct", "pet"), "W": ("mr",)}
SPLITS = {"A": "train", "B": "train", "V": "val", "W": "val"}


@pytest.fixture
def module(paired):
    def build(splits=SPLITS, seed: int = 0, remove=(), **options) -> PairedDataModule:
        made = paired(SUBJECTS, splits=splits)
        made.rows = [row for row in made.rows if not row.startswith(tuple(remove))] if remove else made.rows
        csv = made.write()
        options = {"train_modalities": {"pet": 1, "mr": 1, "ct": 1}, "patches_per_epoch": 8, **options}
        chosen = ManifestOptions(manifest=str(csv), **options)
        data = ManifestSource(chosen).load(0)
        return PairedDataModule(data, chosen, CARD, (12, 12, 8), ("liver", "spleen"), seed)

    return build


def test_every_place_is_seen_in_all_labelled_modalities_of_its_subject(module) -> None:
    made = module(modalities=["ct", "pet", "mr"]).validated(6)
    batches = list(made.val_dataloader())
    seen = [(b.subject[0], b.modality[0]) for b in batches]
    assert seen == [("V", "ct"), ("V", "pet"), ("W", "mr")] * 3
    for ct, pet in zip(batches[::3], batches[1::3], strict=True):
        assert torch.equal(ct.affine, pet.affine)
        assert ct.asked == pet.asked != [""]
        # the fixture's boxes lie at the same millimetres in both scans
        both, either = ((ct.label > 0) & (pet.label > 0)).sum(), ((ct.label > 0) | (pet.label > 0)).sum()
        assert both / either > 0.5
    # nothing is augmented, nothing depends on the epoch
    assert made.options.augment
    again = list(made.val_dataloader())
    assert all(torch.equal(a.image, b.image) for a, b in zip(batches, again, strict=True))


def test_modalities_that_are_not_evaluated_are_left_out(module) -> None:
    made = module(modalities=["pet"]).validated(2)
    assert [b.subject[0] + b.modality[0] for b in made.val_dataloader()] == ["Vpet", "Vpet"]


def test_without_validation_subjects_it_is_said_what_to_do(module) -> None:
    with pytest.raises(UserError, match=r"split 'val'") as caught:
        module(splits={**SPLITS, "V": "train", "W": "train"}).validation_subjects()
    assert "data.val_share" in str(caught.value)
    assert module().val_dataloader() == []


def test_targets_are_what_is_trained_beside_the_reference(module) -> None:
    assert module().target_modalities() == ["pet"]
    assert module(reference="pet").target_modalities() == ["ct", "mr"]
    assert module(train_modalities={"ct": 1}).target_modalities() == ["ct"]


def test_balanced_structures_are_drawn_alike_however_many_scans_hold_them(paired) -> None:
    """The spleen is in one scan of four; balanced, that scan is asked for it more often."""
    made = paired(
        {"A": ("ct",), "B": ("ct",), "C": ("ct",), "D": ("ct",)}, splits=dict.fromkeys("ABCD", "train")
    )
    import nibabel as nib

    for subject in "ABC":
        path = made.file(subject, "ct", "label")
        label = nib.load(path)
        values = np.asarray(label.dataobj).copy()
        values[values == 1] = 0
        nib.save(nib.Nifti1Image(values, label.affine), path)
    csv = str(made.write())

    def share(balance: str, **weights: float) -> float:
        chosen = ManifestOptions(
            manifest=csv,
            train_modalities={"ct": 1},
            balance=balance,
            foreground=1.0,
            structure_weights=weights,
        )
        data = PairedDataModule(
            ManifestSource(chosen).load(0), chosen, CARD, (12, 12, 8), ("liver", "spleen"), 0
        )
        patches = data.train_dataloader().dataset
        asked = Counter(item.asked for item in map(patches.draw, range(240)) if item.subject == "D")
        return asked["spleen"] / asked.total()

    assert share("none") == pytest.approx(1 / 2, abs=0.15)
    # held by one scan against four: drawn four times as often where it is
    assert share("scans") == pytest.approx(4 / 5, abs=0.12)
    assert share("scans", spleen=0.0) == 0.0
