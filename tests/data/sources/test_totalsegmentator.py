"""TotalSegmentator: masks become one map with the published ids; splits and sites are the list's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from umdseg.data.io.nifti import read_label
from umdseg.data.sources import derived
from umdseg.data.sources.totalsegmentator import TotalSegmentatorOptions, TotalSegmentatorSource
from umdseg.errors import UserError


@pytest.fixture
def written(layouts, tmp_path: Path) -> dict:
    return layouts("totalsegmentator", tmp_path / "ts")


def source(options: dict, **more) -> TotalSegmentatorSource:
    return TotalSegmentatorSource(TotalSegmentatorOptions(**{**options, **more}))


def test_published_splits_and_sites(written: dict, layouts) -> None:
    dataset = source(written).read(0)
    assert {s.id: s.split for s in dataset.subjects} == layouts.module("totalsegmentator").SPLITS
    assert {s.site for s in dataset.subjects} == {"C"}
    assert {m for s in dataset.subjects for m in s.scans} == {"ct"}


def test_maps_hold_every_mask_at_its_published_id(written: dict, layouts) -> None:
    dataset = source(written).load(0)
    ids = layouts.module("totalsegmentator").CT
    assert dict(dataset.structures) == ids
    for subject in dataset.subjects:
        made = nib.load(subject.scans["ct"].label)
        assert np.array_equal(np.asarray(made.dataobj), layouts.volumes.blocks(ids.values()))
        assert np.allclose(made.affine, layouts.volumes.AFFINE)


def test_a_mask_in_nifti_2_is_read_like_any(written: dict, layouts) -> None:
    mask = Path(written["root"]) / "s0001" / "segmentations" / "liver.nii.gz"
    image = nib.load(mask)
    nib.save(nib.Nifti2Image(np.asarray(image.dataobj), image.affine), mask)
    dataset = source(written).load(0)
    label = next(s for s in dataset.subjects if s.id == "s0001").scans["ct"].label
    ids = layouts.module("totalsegmentator").CT
    assert np.array_equal(np.asarray(nib.load(label).dataobj), layouts.volumes.blocks(ids.values()))


def test_all_of_the_published_structures(layouts, shared_data: Path, tmp_path: Path) -> None:
    table = json.loads((shared_data / "totalsegmentator" / "class_ids.json").read_text())
    for task, mr, count in (("total", False, 117), ("total_mr", True, 50)):
        ids = {name: int(id) for id, name in table[task].items()}
        options = layouts("totalsegmentator", tmp_path / task, mr=mr, ids=ids)
        dataset = source(options, structures=None).load(0)
        assert len(dataset.structures) == count
        label = read_label(dataset.subjects[0].scans["mr" if mr else "ct"].label)
        assert np.array_equal(label.array, layouts.volumes.blocks(ids.values()))


def test_maps_are_made_once_and_again_when_a_mask_changes(written: dict, layouts, monkeypatch) -> None:
    made = []
    write = derived.write_volume
    monkeypatch.setattr(
        derived, "write_volume", lambda volume, path: (made.append(path), write(volume, path))
    )
    first = source(written).load(0)
    assert len(made) == 4
    source(written).load(0)
    assert len(made) == 4
    mask = Path(written["root"]) / "s0001" / "segmentations" / "liver.nii.gz"
    layouts.volumes.mask(mask, 9)
    os.utime(mask, (1, 1))
    again = source(written).load(0)
    assert len(made) == 5
    assert again.fingerprint() != first.fingerprint()


def test_fewer_structures_are_another_map(written: dict) -> None:
    few = source(written, structures=["Liver", "left kidney"]).load(0)
    assert dict(few.structures) == {"kidney_left": 3, "liver": 5}
    with pytest.raises(UserError, match="unknown structure") as caught:
        source(written, structures=["livr"]).read(0)
    assert caught.value.nearest == "liver"


def test_fingerprint_does_not_know_where_the_cache_lies(written: dict, tmp_path: Path) -> None:
    prints = set()
    for name in "ab":
        dataset = source(written, cache_dir=str(tmp_path / name)).load(0)
        prints.add(dataset.fingerprint(tmp_path / name))
    assert len(prints) == 1


def test_overlapping_masks_are_told_and_the_higher_id_wins(written: dict, layouts, capsys) -> None:
    # aorta (52) drawn where the liver (5) is
    layouts.volumes.mask(Path(written["root"]) / "s0004" / "segmentations" / "aorta.nii.gz", 5)
    dataset = source(written).load(0)
    assert "overlap in 1 of 4 label maps (8 voxels in all)" in capsys.readouterr().err
    label = read_label(next(s for s in dataset.subjects if s.id == "s0004").scans["ct"].label)
    assert (label.array == 52).sum() == 8
    assert (label.array == 5).sum() == 0


def test_damaged_masks_are_named_and_leave_nothing(written: dict) -> None:
    mask = Path(written["root"]) / "s0001" / "segmentations" / "liver.nii.gz"
    mask.write_bytes(mask.read_bytes()[:-9])
    with pytest.raises(UserError, match="truncated or damaged") as caught:
        source(written).load(0)
    assert f"{mask} (subject s0001)" in str(caught.value.where)
    label = source(written).read(0).subjects[1].scans["ct"].label
    assert not label.exists()
    assert not label.parent.exists() or not list(label.parent.iterdir())


def test_masks_that_are_none_or_lie_elsewhere(written: dict, layouts) -> None:
    mask = Path(written["root"]) / "s0001" / "segmentations" / "liver.nii.gz"
    layouts.volumes.label(mask, [7])
    with pytest.raises(UserError, match="ids that no structure has: 7"):
        source(written).load(0)
    layouts.volumes.save(mask, np.zeros(layouts.volumes.COARSE_SHAPE, np.uint8), coarse=True)
    with pytest.raises(UserError, match="another grid"):
        source(written).load(0)


def test_names_of_version_one_are_refused(written: dict) -> None:
    folder = Path(written["root"]) / "s0001" / "segmentations"
    (folder / "liver.nii.gz").rename(folder / "heart_atrium_left.nii.gz")
    with pytest.raises(UserError, match="1 unknown structures, such as heart_atrium_left") as caught:
        source(written).read(0)
    assert "version 1" in caught.value.expected


def test_missing_masks_images_and_rows(written: dict) -> None:
    root = Path(written["root"])
    (root / "s0001" / "segmentations" / "liver.nii.gz").unlink()
    with pytest.raises(UserError, match="1 of 6 masks of subject s0001 are missing: liver"):
        source(written).read(0)
    (root / "s0004" / "ct.nii.gz").unlink()
    with pytest.raises(UserError, match="1 of 4 subjects have no image: s0004"):
        source(written).read(0)
    (root / "s0004").rename(root / "s9999")
    (root / "s9999" / "mri.nii.gz").touch()
    with pytest.raises(UserError, match="both the CT and the MR"):
        source(written).read(0)


def test_list_of_splits(written: dict) -> None:
    meta = Path(written["root"]) / "meta.csv"
    text = meta.read_text(encoding="utf-8-sig")
    for changed, what in (
        (text.replace("s0011", "s0012"), "1 of 4 subjects are not in the list: s0011"),
        (text.replace("test", "tset"), "unknown split 'tset'"),
        (text.replace(";", ","), "unexpected columns"),
    ):
        meta.write_text(changed)
        with pytest.raises(UserError, match=what):
            source(written).read(0)
    meta.unlink()
    with pytest.raises(UserError, match="list of subjects and splits is missing"):
        source(written).read(0)
