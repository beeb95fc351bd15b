"""The real soft-tissue sarcoma patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from umdseg.data.io.nifti import read_image, read_label
from umdseg.data.sources.sts import StsOptions, StsSource
from umdseg.errors import UserError


@pytest.fixture
def root(shared_data: Path) -> Path:
    return shared_data / "sts_pet_ct_mr"


def load(root: Path, seed: int = 0, **options):
    return StsSource(StsOptions(root=str(root), **options)).load(seed)


def test_eighteen_patients_sixteen_with_ct(root: Path) -> None:
    dataset = load(root)
    assert len(dataset.subjects) == 18
    assert sum("ct" in s.scans for s in dataset.subjects) == 16
    # named in the data's own MANIFEST: no CT image here
    assert {s.id for s in dataset.subjects if "ct" not in s.scans} == {"STS_011", "STS_049"}
    assert all({"pet", "mr"} <= set(s.scans) for s in dataset.subjects)
    assert {s.scans["pet"].units for s in dataset.subjects} == {"SUV"}
    assert dict(dataset.structures) == {"tumour": 1}
    assert next(s for s in dataset.subjects if s.id == "STS_011").reference() == "mr"


def test_mask_volumes_equal_simpleitks(root: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    for subject in load(root).subjects[:6]:
        for scan in subject.scans.values():
            grid = read_image(scan.image, subject.id).grid
            mask = read_label(scan.label, grid, [1], subject.id)
            theirs = sitk.ReadImage(str(scan.label))
            count = int((sitk.GetArrayViewFromImage(theirs) == 1).sum())
            assert count > 0
            ours_ml = (mask.array == 1).sum() * mask.grid.voxel_ml
            assert ours_ml == pytest.approx(count * np.prod(theirs.GetSpacing()) / 1000, rel=1e-5)


def test_masks_of_one_patient_lie_at_the_same_place(root: Path) -> None:
    """One contour propagated to three grids: centres agree within a PET voxel in patient space."""
    for subject in load(root).subjects[:4]:
        centres = []
        for scan in subject.scans.values():
            mask = read_label(scan.label)
            centres.append(mask.grid.to_world(np.argwhere(mask.array == 1)).mean(axis=0))
        assert np.abs(np.array(centres) - centres[0]).max() < 5.0


def test_every_mask_holds_nothing_but_the_tumour(root: Path) -> None:
    for subject in load(root).subjects[6:]:
        for scan in subject.scans.values():
            assert read_label(scan.label, None, [1], subject.id).array.max() == 1


def test_folds_partition_the_patients(root: Path) -> None:
    tested = []
    for fold in range(3):
        dataset = load(root, fold=fold)
        test = dataset.of("test")
        assert len(test) == 6
        assert sum(len(s.scans) == 3 for s in test) >= 5
        assert not {s.id for s in test} & {s.id for s in dataset.of("train")}
        assert len(dataset.of("train")) == 12
        tested += [s.id for s in test]
    assert sorted(tested) == sorted(s.id for s in load(root).of("all"))
    assert len(set(tested)) == 18


def test_split_is_seeded(root: Path) -> None:
    splits = [[s.split for s in load(root, seed=seed).subjects] for seed in (0, 0, 1)]
    assert splits[0] == splits[1]
    assert splits[0] != splits[2]


def test_validation_share_comes_from_the_training_patients(root: Path) -> None:
    plain, held = load(root), load(root, val_share=0.25)
    assert {s.id for s in held.of("test")} == {s.id for s in plain.of("test")}
    assert len(held.of("val")) == 3
    assert len(held.of("train")) == 9
    with pytest.raises(UserError, match="split 'val'"):
        plain.of("val")


def test_subset_of_patients_and_both_layouts(root: Path, tmp_path: Path) -> None:
    for name in ("STS_001", "STS_011", "STS_036"):
        (tmp_path / name).symlink_to(root / "nifti" / name)
    assert [s.id for s in load(tmp_path).subjects] == ["STS_001", "STS_011", "STS_036"]
    assert load(tmp_path).of("test")
    assert load(tmp_path).of("train")


def test_a_patient_alone_is_tested(root: Path, tmp_path: Path) -> None:
    (tmp_path / "STS_011").symlink_to(root / "nifti" / "STS_011")
    for given in (tmp_path, root / "nifti" / "STS_011"):
        for fold in range(3):
            assert [s.id for s in load(given, fold=fold).of("test")] == ["STS_011"]


def test_same_patients_same_fingerprint_wherever_they_lie(root: Path, tmp_path: Path) -> None:
    for layout in ("a", "b/nifti"):
        (tmp_path / layout).mkdir(parents=True)
        (tmp_path / layout / "STS_024").symlink_to(root / "nifti" / "STS_024")
    assert load(tmp_path / "a").fingerprint() == load(tmp_path / "b").fingerprint()


def copy(root: Path, target: Path, names: list[str]) -> Path:
    for name in names:
        (target / name).mkdir(parents=True)
        for file in (root / "nifti" / name).iterdir():
            (target / name / file.name).symlink_to(file)
    return target


def test_deleted_scan_is_an_absent_modality(root: Path, tmp_path: Path) -> None:
    copy(root, tmp_path, ["STS_001", "STS_002"])
    (tmp_path / "STS_001" / "PET_image.nii.gz").unlink()
    subject = load(tmp_path).subjects[0]
    assert set(subject.scans) == {"ct", "mr"}


def test_deleted_mask_is_named(root: Path, tmp_path: Path) -> None:
    copy(root, tmp_path, ["STS_001"])
    (tmp_path / "STS_001" / "PET_mask.nii.gz").unlink()
    with pytest.raises(UserError, match="mask of subject STS_001 is missing") as caught:
        load(tmp_path)
    assert str(tmp_path / "STS_001" / "PET_mask.nii.gz") in str(caught.value)


def test_patient_without_any_image(root: Path, tmp_path: Path) -> None:
    copy(root, tmp_path, ["STS_001"])
    for file in (tmp_path / "STS_001").glob("*_image.nii.gz"):
        file.unlink()
    with pytest.raises(UserError, match="subject STS_001 has no image"):
        load(tmp_path)


def test_no_root_wrong_root_empty_root(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        StsSource(StsOptions()).load(0)
    assert "python train.py data=sts data.root=" in caught.value.expected
    with pytest.raises(UserError, match="folder is missing"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no patients found") as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("options", [{"folds": 1}, {"fold": 3}, {"fold": -1}, {"val_share": 1.0}])
def test_folds_that_make_no_sense(root: Path, options: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"data\.{next(iter(options))}"):
        load(root, **options)
