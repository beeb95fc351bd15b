"""Paired samples: one place, all modalities. Landmarks are closed forms in patient millimetres."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from umdseg import load_backbone
from umdseg.backbones.card import Intensity
from umdseg.data.augment import AugmentationOptions
from umdseg.data.datamodule import PairedDataModule
from umdseg.data.paired import PairedBatch, PairedItem
from umdseg.data.preprocess import Preprocessing
from umdseg.data.sources.manifest import ManifestOptions, ManifestSource
from umdseg.fusion import build
from umdseg.fusion.late import LateOptions
from umdseg.tasks.fused import together

MODALITIES = ("ct", "pet", "mr")
WINDOW = Intensity("window", 0.0, 100.0)
CARD = Preprocessing((3.0, 3.0, 3.0), dict.fromkeys(MODALITIES, WINDOW), None, (20, 20, 20))
LANDMARK, SIGMA = np.array([7.3, -4.1, 11.7]), 7.0


OFF = {"gamma": 0.0, "scale": 0.0, "shift": 0.0}


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def affine(axes: np.ndarray, spacing: tuple[float, ...], shape: tuple[int, ...]) -> np.ndarray:
    """A grid of any orientation centred on the origin."""
    made = np.eye(4)
    made[:3, :3] = axes * np.array(spacing)
    made[:3, 3] = -made[:3, :3] @ ((np.array(shape) - 1) / 2)
    return made


# flipped CT, coarse PET, oblique MR
GRIDS = {
    "ct": ((60, 61, 50), affine(np.diag([-1, -1, 1.0]), (2, 2, 2.5), (60, 61, 50))),
    "pet": ((30, 30, 31), affine(np.eye(3), (4.07, 4.07, 4), (30, 30, 31))),
    "mr": ((64, 64, 40), affine(turned(20), (1.9, 1.9, 3.1), (64, 64, 40))),
}


def write(folder: Path, subject: str, modality: str, label: bool) -> str:
    """A blob around the landmark, and as label (liver, id 2) all within 10 mm of it."""
    shape, place = GRIDS[modality]
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    far = np.linalg.norm(index @ place[:3, :3].T + place[:3, 3] - LANDMARK, axis=-1)
    image = 90 * np.exp(-0.5 * (far / SIGMA) ** 2)
    (folder / subject).mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(image.astype(np.float32), place), folder / subject / f"{modality}.nii.gz")
    mask = (2 * (far < 10)).astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, place), folder / subject / f"{modality}_label.nii.gz")
    units, tracer = {"ct": ("HU", ""), "pet": ("SUV", "FDG"), "mr": ("a.u.", "T1")}[modality]
    named = f"{subject}/{modality}_label.nii.gz" if label else ""
    return f"{subject},{modality},{subject}/{modality}.nii.gz,{named},{units},{tracer},train,here"


HEADER = "subject,modality,image,label,units,tracer_or_sequence,split,site"


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., PairedDataModule]:
    def build(subjects: dict[str, tuple[str, ...]], labelled=MODALITIES, **options) -> PairedDataModule:
        rows = [write(tmp_path, s, m, m in labelled) for s, own in subjects.items() for m in own]
        (tmp_path / "mine.csv").write_text("\n".join([HEADER, *rows]) + "\n")
        (tmp_path / "mine.yaml").write_text("structures: {liver: 2, spleen: 1}\n")
        options = {"paired": True, "augment": False, "bad_intensity": "warn", **options}
        weights = options.pop("train_modalities", dict.fromkeys(MODALITIES, 1.0))
        chosen = ManifestOptions(manifest=str(tmp_path / "mine.csv"), train_modalities=weights, **options)
        data = ManifestSource(chosen).load(0)
        return PairedDataModule(data, chosen, CARD, (20, 20, 20), ("spleen", "liver"), 0)

    return build


def landmark(item: PairedItem) -> np.ndarray:
    """Fractional voxel index of the landmark by the item's affine."""
    matrix = item.affine.double().numpy()
    return np.linalg.solve(matrix[:3, :3], LANDMARK - matrix[:3, 3])


def centre(image: torch.Tensor) -> np.ndarray:
    """Centre of mass of a blob (the square makes its tails, which the window may cut, weigh less)."""
    weight = image[0].double().numpy() ** 2
    index = np.stack(np.meshgrid(*[np.arange(n) for n in weight.shape], indexing="ij"), axis=-1)
    return (index * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum()


@pytest.mark.parametrize("reference", ["ct", "pet", "mr", "card"])
def test_a_landmark_falls_on_the_same_voxel_in_every_modality(module, reference: str) -> None:
    data = module({"A": MODALITIES}, reference=reference, foreground=1.0).train_dataloader().dataset
    seen = 0
    for number in range(60):
        item = data[number]
        wanted = landmark(item)
        # away from the rim the blob is whole, and its centre is the landmark
        if (wanted < 6).any() or (wanted > 13).any():
            continue
        seen += 1
        for modality in MODALITIES:
            np.testing.assert_allclose(centre(item.image[modality]), wanted, atol=0.2, err_msg=modality)
        index = np.argwhere(item.label[0].numpy() == 2).mean(axis=0)
        np.testing.assert_allclose(index, wanted, atol=0.5)
        assert item.asked == "liver"
    assert seen >= 3


def test_misalignment_moves_images_by_millimetres_but_neither_the_reference_nor_the_label(module) -> None:
    chosen = {"augment": True, "foreground": 1.0}
    still = module({"A": MODALITIES}, augmentation=AugmentationOptions(**OFF), **chosen)
    moved = module({"A": MODALITIES}, augmentation=AugmentationOptions(**OFF, misalign_mm=5.0), **chosen)
    data, other = still.train_dataloader().dataset, moved.train_dataloader().dataset
    shifts = []
    for number in range(150):
        item, drawn = data[number], other[number]
        assert torch.equal(item.label, drawn.label)
        assert torch.equal(item.image["ct"], drawn.image["ct"])
        wanted = landmark(item)
        if (wanted < 7).any() or (wanted > 12).any():
            continue
        shifts += [3.0 * (centre(drawn.image[m]) - wanted) for m in ("pet", "mr")]
        if len(shifts) >= 6:
            break
    far = np.abs(shifts)
    assert len(far) >= 4
    assert far.max() < 5.6
    assert far.max() > 1.5
    # the two scans move each by itself
    assert (np.abs(np.array(shifts[::2]) - shifts[1::2]).max(axis=1) > 1).any()


@pytest.mark.parametrize(
    ("held", "weights", "lead"),
    [
        (("pet", "mr"), {"ct": 1.0, "pet": 1.0, "mr": 1.0}, "mr"),
        # MR is the reference, but no part of the sample: what the model starts from is PET
        (("ct", "pet", "mr"), {"pet": 1.0, "mr": 0.0}, "pet"),
    ],
)
def test_the_scan_that_leads_is_never_misaligned(module, held, weights, lead: str) -> None:
    chosen = {"augment": True, "foreground": 1.0, "train_modalities": weights}
    chosen |= {"reference": "mr"} if lead == "pet" else {}
    still = module({"A": held}, augmentation=AugmentationOptions(**OFF), **chosen)
    moved = module({"A": held}, augmentation=AugmentationOptions(**OFF, misalign_mm=5.0), **chosen)
    first, second = (data.train_dataloader().dataset[0].image for data in (still, moved))
    assert torch.equal(first[lead], second[lead])
    assert lead in first
    others = [m for m in first if m != lead]
    assert not any(torch.equal(first[m], second[m]) for m in others)


def test_the_label_lies_on_whatever_scan_is_left_to_lead(module) -> None:
    moved = AugmentationOptions(**OFF, misalign_mm=6.0, mirror=True)
    chosen = {"augment": True, "foreground": 1.0, "batch_size": 4, "patches_per_epoch": 240}
    loader = module({"A": MODALITIES}, augmentation=moved, **chosen).train_dataloader()
    fused = build(LateOptions(dropout=0.5), load_backbone("vista3d_tiny", "random"), MODALITIES, "ct")
    shifts: dict[str, list[float]] = {m: [] for m in MODALITIES}
    for number, batch in enumerate(loader):
        given = together(batch, fused, seed=0, number=number)
        for sample, (asked, there) in enumerate(zip(batch.asked, given.present, strict=True)):
            # by hand: of CT, MR and PET the first that is left
            lead = next(m for m in ("ct", "mr", "pet") if there[MODALITIES.index(m)])
            found = np.argwhere(given.label[sample, 0].numpy() == 2)
            blob = centre(batch.image[lead][sample])
            if not asked or not len(found) or (blob < 6).any() or (blob > 13).any():
                continue
            # half a voxel is what the nearest of a label's voxels may be away
            np.testing.assert_allclose(found.mean(axis=0), blob, atol=0.8)
            before = np.argwhere(batch.label[sample, 0].numpy() == 2).mean(axis=0)
            shifts[lead].append(3.0 * float(np.abs(before - blob).max()))
    # the scans that came to lead had been moved
    assert all(max(shifts[m]) > 2.5 for m in ("pet", "mr"))
    assert max(shifts["ct"]) < 1.5


@pytest.mark.parametrize("reference", ["ct", "mr"])
@pytest.mark.parametrize("misalign", [0.0, 30.0])
def test_a_scan_is_present_where_a_voxel_of_the_patch_lies_in_its_field_of_view(
    module, monkeypatch: pytest.MonkeyPatch, reference: str, misalign: float
) -> None:
    # a slab of 24 mm around z = 60 beside a CT of 125 mm around 0; its prepared image is padded to 60 mm
    low = affine(np.eye(3), (4.0, 4.0, 4.0), (30, 30, 6))
    low[2, 3] += 60.0
    monkeypatch.setitem(GRIDS, "mr", ((30, 30, 6), low))
    options = {"augment": True, "augmentation": AugmentationOptions(**OFF, misalign_mm=misalign)}
    made = module({"A": ("ct", "mr")}, ("ct",), reference=reference, foreground=0.0, **options)
    data, seen = made.train_dataloader().dataset, set()
    for number in range(40):
        item = data[number]
        there = dict(zip(made.fused_modalities(), item.present.tolist(), strict=True))
        assert there[reference]
        if reference == "mr":
            continue
        z = item.affine[2, 3] + item.affine[2, 2] * torch.arange(20)
        # the edge voxel's outer face, and a tenth of a millimetre
        reached = bool(((z >= 48 - 0.1) & (z <= 72 + 0.1)).any())
        if not misalign:
            assert there["mr"] == reached
        # a scan that is read beside its place is there where it is read
        assert there["mr"] or not item.image["mr"].any()
        seen.add(there["mr"])
    assert len(seen) == 2 or reference == "mr"


def test_a_modality_that_is_lacking_is_zeros_and_not_present(module) -> None:
    made = module({"A": ("ct", "pet"), "B": ("pet", "mr"), "C": ("ct",)}, batch_size=8, patches_per_epoch=40)
    had = {"A": [True, True, False], "B": [False, True, True], "C": [True, False, False]}
    subjects = set()
    for batch in made.train_dataloader():
        assert isinstance(batch, PairedBatch)
        assert list(batch.image) == list(MODALITIES)
        assert batch.present.dtype == torch.bool
        assert batch.label.shape == batch.image["ct"].shape == (8, 1, 20, 20, 20)
        for number, subject in enumerate(batch.subject):
            subjects.add(subject)
            assert batch.present[number].tolist() == had[subject]
            for modality, present in zip(MODALITIES, had[subject], strict=True):
                assert batch.image[modality].dtype == torch.float32
                assert bool(batch.image[modality][number].any()) <= present
            assert batch.tracer["pet"][number] == ("" if subject == "C" else "FDG")
            if batch.asked[number]:
                value = 1 + batch.structures.index(batch.asked[number])
                assert (batch.label[number] == value).any()
    assert subjects == set("ABC")
    assert any(batch.image["mr"].any() for batch in made.train_dataloader())


def test_the_label_is_the_references_or_of_whoever_has_one(module) -> None:
    made = module({"A": ("ct", "pet")}, labelled=("pet",), foreground=1.0)
    data = made.train_dataloader().dataset
    assert all(data[number].asked == "liver" for number in range(10))


def test_modalities_switched_off_or_held_by_nobody_are_left_out(module) -> None:
    made = module({"A": ("ct", "pet")}, train_modalities={"pet": 1.0, "mr": 1.0}, foreground=1.0)
    item = made.train_dataloader().dataset[0]
    assert list(item.image) == ["pet"]
    assert item.present.tolist() == [True]


def test_items_are_the_same_whoever_draws_them(module) -> None:
    subjects = {"A": MODALITIES, "B": ("ct", "mr")}
    plain = list(module(subjects, patches_per_epoch=6).train_dataloader())
    worker = list(module(subjects, patches_per_epoch=6, workers=1).train_dataloader())
    for one, two in zip(plain, worker, strict=True):
        assert one.subject == two.subject
        assert all(torch.equal(one.image[m], two.image[m]) for m in MODALITIES)


def test_augmentation_leaves_places_and_absent_modalities_alone(module) -> None:
    subjects = {"A": ("ct", "pet"), "B": ("mr",)}
    plain = module(subjects, patches_per_epoch=12).train_dataloader().dataset
    varied = module(subjects, patches_per_epoch=12, augment=True).train_dataloader().dataset
    for number in range(12):
        one, two = plain[number], varied[number]
        assert torch.equal(one.label, two.label)
        assert torch.equal(one.affine, two.affine)
        for modality, present in zip(MODALITIES, two.present.tolist(), strict=True):
            assert present or not two.image[modality].any()
    assert any(not torch.equal(plain[n].image["ct"], varied[n].image["ct"]) for n in range(12))


def test_a_scan_without_a_label_is_taken_and_one_that_nobody_has_is_told(module, capsys) -> None:
    made = module({"A": ("ct", "pet")}, labelled=("ct",))
    made.prepare_data()
    told = [line for line in capsys.readouterr().err.splitlines() if "not trained on" in line]
    assert told == ["mr: 0 of 1 training subjects have a scan; not trained on"]
    assert list(made.train_dataloader().dataset[0].image) == ["ct", "pet"]


def test_a_landmark_falls_on_the_same_voxel_in_every_mirrored_modality(module) -> None:
    chosen = {"augment": True, "foreground": 1.0}
    data = module({"A": MODALITIES}, augmentation=AugmentationOptions(**OFF, mirror=True), **chosen)
    still = module({"A": MODALITIES}, augmentation=AugmentationOptions(**OFF), **chosen)
    drawn, plain = data.train_dataloader().dataset, still.train_dataloader().dataset
    turned, seen = 0, 0
    for number in range(60):
        item: PairedItem = drawn[number]
        turned += not torch.equal(item.label, plain[number].label)
        wanted = landmark(item)
        if (wanted < 6).any() or (wanted > 13).any():
            continue
        seen += 1
        for modality in MODALITIES:
            np.testing.assert_allclose(centre(item.image[modality]), wanted, atol=0.2, err_msg=modality)
        np.testing.assert_allclose(np.argwhere(item.label[0].numpy() == 2).mean(axis=0), wanted, atol=0.5)
    assert seen >= 3
    assert turned >= 30


def test_single_scans_are_mirrored_with_their_label(module) -> None:
    options = {"augment": True, "foreground": 1.0, "paired": False, "train_modalities": {"ct": 1.0}}
    data = module({"A": ("ct",)}, augmentation=AugmentationOptions(**OFF, mirror=True), **options)
    patches = data.train_dataloader().dataset
    signs = set()
    for number in range(20):
        item = patches[number]
        signs.add(tuple(np.sign(np.diag(item.affine.numpy())[:3])))
        wanted = landmark(item)
        if (wanted > 6).all() and (wanted < 13).all():
            np.testing.assert_allclose(centre(item.image), wanted, atol=0.2)
    assert len(signs) > 3
