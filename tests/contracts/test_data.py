"""Every registered source through one battery, on a tiny dataset of its published layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError

from umdseg import registry
from umdseg.anatomy import canonical
from umdseg.backbones.card import Intensity
from umdseg.data.datamodule import PairedDataModule
from umdseg.data.dataset import PairedDataset
from umdseg.data.io.nifti import read_grid, read_label
from umdseg.data.preprocess import Preprocessing
from umdseg.errors import UserError
from umdseg.vocabulary import UNITS

# source -> writer of its layout, function of the writer, options
ROWS: dict[str, tuple[str, str, dict]] = {
    "amos": ("amos", "make", {}),
    "autopet": ("autopet", "make", {}),
    "enhance_pet": ("enhance_pet", "make", {}),
    "petct": ("manifest", "make", {}),
    "petmri": ("manifest", "make_petmri", {}),
    "phantom": ("", "", {"train": 1, "test": 1, "modalities": ["pet"], "train_modalities": {"pet": 1.0}}),
    "sts": ("sts", "make", {}),
    "synthrad": ("synthrad", "make_2025", {}),
    "totalsegmentator": ("totalsegmentator", "make", {}),
    "umd": ("umd", "make", {}),
}


WINDOW = Intensity("window", -1000.0, 1000.0)
CARD = Preprocessing((4.0, 4.0, 4.0), dict.fromkeys(("ct", "pet", "mr"), WINDOW), None, (8, 8, 8))


def test_every_source_has_a_row() -> None:
    assert sorted(ROWS) == registry.names("data")


@pytest.fixture(scope="module", params=sorted(ROWS))
def made(request, layouts, tmp_path_factory):
    """Name of a source and the options that read its tiny dataset."""
    name = request.param
    writer, how, options = ROWS[name]
    root = tmp_path_factory.mktemp(name)
    written = layouts(writer, root, how) if writer else {}
    return name, {"name": name, **options, **written, "cache_dir": str(root / "cache")}


@pytest.fixture
def source(made):
    """A fresh source."""
    name, options = made
    factory = registry.resolve("data", name)
    return factory(factory.Options(**options))


@pytest.fixture(scope="module")
def loaded(made) -> PairedDataset:
    name, options = made
    factory = registry.resolve("data", name)
    return factory(factory.Options(**options)).load(0)


def test_subjects_have_one_split_and_their_files(loaded: PairedDataset) -> None:
    assert len({s.id for s in loaded.subjects}) == len(loaded.subjects) > 1
    assert {s.split for s in loaded.subjects} <= {"train", "val", "test"}
    assert loaded.of("train")
    assert loaded.of("test")
    for subject in loaded.subjects:
        assert subject.scans
        for modality, scan in subject.scans.items():
            assert scan.modality == modality
            assert scan.units == UNITS[modality]
            assert scan.image.is_file()
            assert scan.label.is_file()


def test_no_patient_is_in_two_splits(made) -> None:
    name, options = made
    factory = registry.resolve("data", name)
    for seed in range(5):
        dataset = factory(factory.Options(**{**options, "folds": 2})).read(seed)
        splits: dict[str, set[str]] = {}
        for subject in dataset.subjects:
            splits.setdefault(subject.patient or subject.id, set()).add(subject.split)
        assert all(len(held) == 1 for held in splits.values())
        assert set().union(*splits.values()) == {"train", "test"}


def test_labels_hold_the_named_ids_and_nothing_else(loaded: PairedDataset) -> None:
    ids = set(loaded.structures.values())
    assert len(ids) == len(loaded.structures) > 0
    for subject in loaded.subjects:
        for modality, scan in subject.scans.items():
            others = [read_grid(path) for path in subject.other_images(modality)]
            label = read_label(scan.label, read_grid(scan.image), ids, subject.id, others)
            assert label.array.max() > 0


def test_structures_are_canonical(loaded: PairedDataset) -> None:
    assert all(canonical(name) == name for name in loaded.structures)


def test_reading_tells_what_loading_gives_every_time(source, loaded: PairedDataset) -> None:
    assert source.read(0) == source.read(0) == loaded


def test_fingerprint_is_of_the_content(source, loaded: PairedDataset, made, tmp_path: Path) -> None:
    cache = made[1]["cache_dir"]
    assert source.load(0).fingerprint(cache) == loaded.fingerprint(cache)
    first = loaded.subjects[0]
    modality, scan = next(iter(first.scans.items()))
    other = tmp_path / scan.image.name
    image = nib.load(scan.image)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + np.float32(1), image.affine), other)
    scans = {**first.scans, modality: replace(scan, image=other)}
    changed = replace(loaded, subjects=(replace(first, scans=scans), *loaded.subjects[1:]))
    assert changed.fingerprint(cache) != loaded.fingerprint(cache)


def test_options_refuse_typos(source) -> None:
    with pytest.raises(ConfigKeyError):
        OmegaConf.merge(OmegaConf.structured(source.Options), {"rooot": "x"})


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"phantom"}))
def test_without_a_place_the_source_says_how_to_call_it(name: str) -> None:
    factory = registry.resolve("data", name)
    with pytest.raises(UserError) as caught:
        factory(factory.Options(name=name)).load(0)
    assert f"python train.py data={name} data." in caught.value.expected
    assert len(str(caught.value).splitlines()) < 10


def test_patches_come_out(source, loaded: PairedDataset) -> None:
    options = replace(source.options, patches_per_epoch=4, augment=False)
    names = list(loaded.structures)[:3]
    module = PairedDataModule(loaded, options, CARD, (8, 8, 8), names, 0)
    batches = list(module.train_dataloader())
    assert sum(len(b.subject) for b in batches) == 4
    assert {s for b in batches for s in b.subject} <= {s.id for s in loaded.of("train")}
    assert any(bool((b.label > 0).any()) for b in batches)
    assert all(torch.isfinite(b.image).all() for b in batches)
