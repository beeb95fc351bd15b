"""The datamodule: what is drawn, that it is repeatable, and that Lightning can use it."""

from __future__ import annotations

import pickle
from collections import Counter

import lightning.pytorch as pl
import nibabel as nib
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from umdseg.backbones.card import Intensity
from umdseg.data.augment import vary_intensity
from umdseg.data.datamodule import PairedDataModule
from umdseg.data.dataset import few_shots
from umdseg.data.preprocess import Preprocessing
from umdseg.data.sampler import EpochSampler
from umdseg.data.sources.manifest import ManifestOptions, ManifestSource
from umdseg.errors import UserError
from umdseg.vocabulary import Batch

WINDOW = Intensity("window", -1000.0, 1000.0)
EVEN = {"ct": 1.0, "pet": 1.0}
CARD = Preprocessing((4.0, 4.0, 4.0), dict.fromkeys(("ct", "pet", "mr"), WINDOW), None, (12, 12, 8))
SUBJECTS = {"A": ("ct", "pet"), "B": ("pet", "mr"), "C": ("ct",), "D": ("ct", "pet", "mr")}
SPLITS = dict.fromkeys("ABC", "train")


@pytest.fixture
def module(paired):
    made = paired(SUBJECTS, splits=SPLITS).write()

    def build(seed: int = 0, structures=("liver", "spleen"), **options) -> PairedDataModule:
        options = {"train_modalities": {"pet": 1, "mr": 1, "ct": 1}, "patches_per_epoch": 8, **options}
        chosen = ManifestOptions(manifest=str(made), **options)
        return PairedDataModule(ManifestSource(chosen).load(0), chosen, CARD, (12, 12, 8), structures, seed)

    return build


def batches(module: PairedDataModule, epoch: int = 0) -> list[Batch]:
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.image, b.image) and torch.equal(a.label, b.label) and a.subject == b.subject
        for a, b in zip(first, second, strict=True)
    )


def test_batch_is_what_the_vocabulary_says(module) -> None:
    got = batches(module(batch_size=3))
    assert [len(b.subject) for b in got] == [3, 3, 2]
    first = got[0]
    assert first.image.shape == first.label.shape == (3, 1, 12, 12, 8)
    assert (first.image.dtype, first.label.dtype) == (torch.float32, torch.int16)
    assert first.affine.shape == (3, 4, 4)
    assert first.structures == ("liver", "spleen")
    assert set(first.subject) <= set("ABC")
    assert all(
        t == {"pet": "FDG", "mr": "T1", "ct": ""}[m]
        for t, m in zip(first.tracer, first.modality, strict=True)
    )
    for batch in got:
        assert 0 <= batch.image.min() <= batch.image.max() <= 1
        assert batch.label.max() <= 2


def test_labels_lie_where_the_structures_are(module) -> None:
    """The liver box of the fixture is known in millimetres; a patch's affine must lead back to it."""
    seen = 0
    for batch in batches(module(patches_per_epoch=20, augment=False)):
        for label, affine in zip(batch.label, batch.affine, strict=True):
            index = np.argwhere(label[0].numpy() == 1)
            world = index @ affine[:3, :3].numpy().T + affine[:3, 3].numpy()
            # one voxel of slack for the two nearest-neighbour steps
            assert (np.abs(world - [10, 0, 0]) < np.array([18, 20, 14]) + 4).all()
            seen += len(index)
    assert seen > 1000


def test_same_patches_whatever_the_number_of_workers(module) -> None:
    plain = batches(module())
    assert same(plain, batches(module()))
    assert same(plain, batches(module(workers=2)))
    assert not same(plain, batches(module(seed=1)))


def test_workers_may_be_started_afresh(module) -> None:
    """Where processes are spawned, the dataset must travel without trainer or datamodule."""
    loader = module().train_dataloader()
    data, gather = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    assert torch.equal(gather([data[3]]).image, loader.collate_fn([loader.dataset[3]]).image)
    assert len(pickle.dumps(loader.dataset)) < 20_000


def test_epochs_differ_and_repeat(module) -> None:
    made = module()
    assert not same(batches(made, 0), batches(made, 1))
    assert same(batches(made, 3), batches(module(workers=1), 3))


def test_ranks_share_an_epoch_without_overlap(module, monkeypatch) -> None:
    made = module(patches_per_epoch=8)
    data = made.train_dataloader().dataset
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda *_: 2)
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr("torch.distributed.get_rank", lambda *_, rank=rank: rank)
        sampler = EpochSampler(data, len(data))
        sampler.set_epoch(2)
        drawn.append(list(sampler))
    assert sorted(drawn[0] + drawn[1]) == list(range(16, 24))


def test_modalities_follow_their_weights_among_those_a_subject_has(module) -> None:
    made = module(train_modalities={"ct": 3.0, "pet": 1.0, "mr": 0.0}, augment=False)
    data = made.train_dataloader().dataset
    drawn = Counter((data[i].subject, data[i].modality) for i in range(500))
    assert set(drawn) == {("A", "ct"), ("A", "pet"), ("B", "pet"), ("C", "ct")}
    assert drawn["A", "ct"] / (drawn["A", "ct"] + drawn["A", "pet"]) == pytest.approx(0.75, abs=0.1)
    assert (drawn["B", "pet"] + drawn["C", "ct"]) / 500 == pytest.approx(2 / 3, abs=0.07)


def test_foreground_share(module) -> None:
    made = module(foreground=1.0, patches_per_epoch=40)
    data = made.train_dataloader().dataset
    assert all(bool((data[i].label > 0).any()) for i in range(40))


def test_patches_say_what_they_were_drawn_for_and_hold_it(module) -> None:
    data = module(patches_per_epoch=60, foreground=0.5).train_dataloader().dataset
    items = [data[i] for i in range(60)]
    for item in items:
        value = {"": None, "liver": 1, "spleen": 2}[item.asked]
        assert value is None or bool((item.label == value).any())
    asked = Counter(item.asked for item in items)
    assert set(asked) == {"", "liver", "spleen"}
    assert asked[""] / 60 == pytest.approx(0.5, abs=0.2)
    batch = batches(module(batch_size=4))[0]
    assert len(batch.asked) == 4
    assert batch.of("ct").asked == [a for a, m in zip(batch.asked, batch.modality, strict=True) if m == "ct"]


def test_structures_are_drawn_by_their_weights(module) -> None:
    def shares(**options) -> dict[str, float]:
        data = module(foreground=1.0, **options).train_dataloader().dataset
        drawn = Counter(data[i].asked for i in range(400))
        return {name: count / 400 for name, count in drawn.items()}

    assert shares() == pytest.approx({"liver": 0.5, "spleen": 0.5}, abs=0.08)
    # 3 against 1, by another spelling of the same organ
    assert shares(structure_weights={"Spleen": 3.0}) == pytest.approx(
        {"liver": 0.25, "spleen": 0.75}, abs=0.08
    )
    assert shares(structure_weights={"liver": 0.0}) == {"spleen": 1.0}


def test_weights_of_structures_not_trained_on_are_refused(module) -> None:
    with pytest.raises(UserError, match="trained structure 'liver'") as caught:
        module(structures=("spleen",), structure_weights={"liver": 2.0})
    assert caught.value.where == "data.structure_weights"
    with pytest.raises(UserError, match="splen") as caught:
        module(structure_weights={"splen": 2.0})
    assert caught.value.nearest == "spleen"


def test_only_the_structures_asked_for_are_labelled(module) -> None:
    made = module(structures=("spleen",), patches_per_epoch=12, foreground=1.0)
    got = batches(made)
    assert got[0].structures == ("spleen",)
    assert max(int(b.label.max()) for b in got) == 1
    with pytest.raises(UserError, match="unknown structure in dataset 'mine' 'splen'") as caught:
        module(structures=("splen",))
    assert caught.value.nearest == "spleen"


def test_shots_are_nested(module) -> None:
    subjects = module().dataset.of("train")
    orders = {n: [s.id for s in few_shots(subjects, n, 5, EVEN)] for n in (1, 2, 3)}
    assert orders[1] == orders[2][:1]
    assert orders[2] == orders[3][:2]
    assert len({tuple(s.id for s in few_shots(subjects, 1, s, EVEN)) for s in range(20)}) > 1
    assert len(module(shots=2).training_subjects()) == 2


def test_no_training_modality_anywhere_is_an_error(module) -> None:
    with pytest.raises(UserError, match="none of the 3 training subjects") as caught:
        module(train_modalities={"ct": 0.0, "pet": 0.0}).prepare_data()
    assert "data.train_modalities" in str(caught.value)
    # the first shot of some seed is C, who has CT alone and is no shot where PET is trained on
    subjects = module().dataset.of("train")
    seed = next(s for s in range(99) if few_shots(subjects, 1, s, EVEN)[0].id == "C")
    (shot,) = module(seed=seed, shots=1, train_modalities={"pet": 1.0}).training_subjects()
    assert "pet" in shot.scans


def test_unlabelled_scans_are_not_trained_on(paired) -> None:
    made = paired({"A": ("ct", "pet")}, splits={"A": "train"})
    made.rows[0] = made.rows[0].replace("A/ct_label.nii.gz", "")
    options = ManifestOptions(manifest=str(made.write()), patches_per_epoch=10)
    module = PairedDataModule(ManifestSource(options).load(0), options, CARD, (12, 12, 8), ("liver",), 0)
    assert {m for b in batches(module) for m in b.modality} == {"pet"}
    whole = module.paired(module.cases("train")[0])
    assert whole["ct"][1] is None
    assert int(whole["pet"][1].max()) == 1


def test_modalities_nobody_has_labels_for_are_told_and_not_counted(paired, capsys) -> None:
    made = paired({"A": ("ct", "pet"), "B": ("ct", "pet")}, splits={"A": "train", "B": "train"})
    made.rows = [row.replace(f"{row[0]}/pet_label.nii.gz", "") for row in made.rows]
    options = ManifestOptions(manifest=str(made.write()), train_modalities={"ct": 1, "pet": 1, "mr": 1})
    module = PairedDataModule(ManifestSource(options).load(0), options, CARD, (12, 12, 8), ("liver",), 0)
    assert module.trained_modalities() == ["ct"]
    module.prepare_data()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "pet: 0 of 2 training subjects have labels; not trained on",
        "mr: 0 of 2 training subjects have a scan; not trained on",
    ]


def test_nothing_is_told_where_every_modality_is_trained(module, capsys) -> None:
    made = module(train_modalities={"pet": 1.0, "ct": 1.0, "mr": 0.0})
    made.prepare_data()
    assert made.trained_modalities() == ["ct", "pet"]
    assert capsys.readouterr() == ("", "")


def test_bad_intensities_are_told_on_every_run_and_refused_if_wanted(paired, capsys, monkeypatch) -> None:
    """A CT scaled to 0-1, prepared by an earlier run that only warned."""
    made = paired({"A": ("ct",)}, splits={"A": "train"})
    path = made.file("A", "ct")
    stored = nib.load(path)
    scaled = (np.asarray(stored.dataobj) + 1000) / 2000
    nib.save(nib.Nifti1Image(scaled.astype(np.float32), stored.affine), path)
    made.write()

    def prepare(policy: str) -> str:
        # a process of its own has told nothing yet
        monkeypatch.setattr("umdseg.data.intensity._told", set())
        options = ManifestOptions(manifest=str(made.csv), bad_intensity=policy)
        source = ManifestSource(options).load(0)
        PairedDataModule(source, options, CARD, (12, 12, 8), ("liver",), 0).prepare_data()
        return capsys.readouterr().err

    first = prepare("warn")
    assert "rescaled" in first
    assert str(path) in first
    assert prepare("warn") == first
    with pytest.raises(UserError, match="rescaled") as caught:
        prepare("refuse")
    assert "subject A" in str(caught.value)


def test_a_label_shared_by_the_pair_trains_pet_at_the_right_place(paired) -> None:
    made = paired({"A": ("ct", "pet")}, splits={"A": "train"})
    made.rows[1] = made.rows[1].replace("pet_label", "ct_label")
    made.file("A", "pet", "label").unlink()
    options = ManifestOptions(
        manifest=str(made.write()),
        train_modalities={"pet": 1.0},
        patches_per_epoch=12,
        foreground=1.0,
        augment=False,
    )
    module = PairedDataModule(ManifestSource(options).load(0), options, CARD, (12, 12, 8), ("liver",), 0)
    seen = 0
    for batch in batches(module):
        assert set(batch.modality) == {"pet"}
        for image, label, affine in zip(batch.image, batch.label, batch.affine, strict=True):
            index = np.argwhere(label[0].numpy() == 1)
            world = index @ affine[:3, :3].numpy().T + affine[:3, 3].numpy()
            assert (np.abs(world - [10, 0, 0]) < np.array([18, 20, 14]) + 4).all()
            # the PET itself is bright there: SUV 6.5 against 0.5 around it, in -1000 ... 1000
            inside, around = image[0][label[0] == 1], image[0][label[0] == 0]
            assert inside.mean() - around.mean() > 0.5 * 6 / 2000
            seen += len(index)
    assert seen > 1000
    whole = module.paired(module.cases("train")[0])
    assert int((whole["pet"][1] == 1).sum()) * 64 == pytest.approx(36 * 40 * 28, rel=0.25)


def test_paired_patches_show_the_same_millimetres(module) -> None:
    made = module()
    subject = made.cases("test")[0]
    assert subject.id == "D"
    got = made.paired_patch(subject, (10.0, 1.0, 0.0))
    assert set(got) == {"ct", "pet", "mr"}
    image, label, affine = got["ct"]
    assert image.shape == label.shape == (1, 12, 12, 8)
    for other, (_, other_label, other_affine) in got.items():
        assert torch.equal(affine, other_affine), other
        # the fixture draws the same box on every grid: they agree but for its rim
        both, either = ((label > 0) & (other_label > 0)).sum(), ((label > 0) | (other_label > 0)).sum()
        assert both / either > 0.7
    assert set(made.paired_patch(made.cases("train")[1], (0.0, 0.0, 0.0))) == {"pet", "mr"}


def test_augmentation_changes_values_not_places(module) -> None:
    plain, varied = batches(module(augment=False)), batches(module(augment=True))
    assert all(
        torch.equal(a.label, b.label) and torch.equal(a.affine, b.affine)
        for a, b in zip(plain, varied, strict=True)
    )
    assert any(not torch.equal(a.image, b.image) for a, b in zip(plain, varied, strict=True))
    ramp = torch.linspace(0, 1, 50)
    for seed in range(20):
        out = vary_intensity(ramp, np.random.default_rng(seed))
        assert (out.diff() >= 0).all(), "order of grey values is kept"
        assert (out - ramp).abs().max() < 0.3


class Tiny(pl.LightningModule):
    """A network of one number that notes what it was fed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, 1, 1)
        self.fed: list[tuple[int, float]] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        assert isinstance(batch, Batch)
        self.fed.append((self.current_epoch, float(batch.image.double().sum())))
        loss = self.layer(batch.image).pow(2).mean()
        self.log("loss", loss, batch_size=len(batch.subject))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def trainer(folder, **options) -> pl.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(max_epochs=2, accelerator="cpu", devices=1, default_root_dir=folder, **quiet, **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_lightning_sees_new_patches_every_epoch(module, tmp_path, workers: int) -> None:
    model = Tiny()
    trainer(tmp_path).fit(model, datamodule=module(patches_per_epoch=4, workers=workers))
    wanted = [
        (epoch, float(batch.image.double().sum()))
        for epoch in (0, 1)
        for batch in batches(module(patches_per_epoch=4), epoch)
    ]
    assert model.fed == wanted
    assert len({value for _, value in model.fed}) == 4


class Drawn(Tiny):
    """Notes the first voxel values of what it was fed, step by step."""

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        loss = super().training_step(batch, index)
        self.fed[-1] = (self.global_step, self.fed[-1][1])
        return loss


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("every", [2, 3, 4])
def test_a_run_stopped_amid_an_epoch_goes_on_with_the_patches_not_yet_drawn(
    module, tmp_path, every: int, accumulate: int
) -> None:
    """7 patches in batches of 2: epochs of 4 batches, the last of one patch; checkpoints fall anywhere."""

    def fit(steps: int, resume=None) -> list[tuple[int, float]]:
        model = Drawn()
        saver = ModelCheckpoint(tmp_path, "last", every_n_train_steps=every, enable_version_counter=False)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        pl.Trainer(
            **{"max_steps": steps, "max_epochs": -1, "accelerator": "cpu", "devices": 1, **quiet},
            **{"default_root_dir": tmp_path, "callbacks": [saver], "use_distributed_sampler": False},
            accumulate_grad_batches=accumulate,
        ).fit(model, datamodule=module(patches_per_epoch=7, batch_size=2), ckpt_path=resume)
        return model.fed

    whole = fit(11)
    assert len({value for _, value in whole}) == len(whole)
    before = fit(every)
    after = fit(11, tmp_path / "last.ckpt")
    assert before + after == whole
