"""ENHANCE.PET, SynthRAD, UMD: what each does that no other source does."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from umdseg import anatomy
from umdseg.data.io.nifti import read_image, read_label
from umdseg.data.sources.enhance_pet import EnhancePetOptions, EnhancePetSource
from umdseg.data.sources.synthrad import SynthradOptions, SynthradSource
from umdseg.data.sources.umd import UmdOptions, UmdSource
from umdseg.errors import UserError

# group -> id -> name, as the data card prints them (ENHANCE-PET/MOOSE, DATA_CARD.md)
CARD = {
    "Cardiac": {1: "heart_myocardium", 5: "heart_ventricle_right", 6: "aorta", 12: "portal_splenic_vein"},
    "Muscles": {1: "autochthon_left", 4: "gluteus_maximus_right", 10: "iliopsoas_right"},
    "Organs": {1: "adrenal_gland_left", 3: "bladder", 8: "liver", 15: "spleen", 18: "thyroid_right"},
}


def test_enhance_pet_groups_become_one_map(layouts, tmp_path: Path) -> None:
    options = layouts("enhance_pet", tmp_path)
    dataset = EnhancePetSource(EnhancePetOptions(**options)).load(0)
    assert len(dataset.structures) == 127
    subject = dataset.subjects[0]
    assert subject.scans["ct"].label == subject.scans["pet"].label
    label = read_label(subject.scans["ct"].label).array
    for group, names in CARD.items():
        published = np.asarray(
            nib.load(tmp_path / f"imaging-data/ground-truth/{group}/{subject.id}.nii.gz").dataobj
        )
        for id, name in names.items():
            ours = dataset.structures[anatomy.canonical(name)]
            assert np.array_equal(label == ours, published == id), name


def test_enhance_pet_with_few_groups(layouts, tmp_path: Path) -> None:
    options = layouts("enhance_pet", tmp_path)
    dataset = EnhancePetSource(EnhancePetOptions(**options, groups=["Organs"])).load(0)
    assert len(dataset.structures) == 18
    with pytest.raises(UserError, match="unknown group") as caught:
        EnhancePetOptions(groups=["Organ"]).validate()
    assert caught.value.where == "data.groups"
    (tmp_path / "imaging-data/ground-truth/Organs/0003.nii.gz").unlink()
    with pytest.raises(
        UserError, match="1 of 5 studies are not in both images/CT and ground-truth/Organs: 0003"
    ):
        EnhancePetSource(EnhancePetOptions(**options, groups=["Organs"])).read(0)


def test_synthrad_2023_at_any_depth(layouts, tmp_path: Path) -> None:
    layouts("synthrad", tmp_path / "data")
    table = layouts.module("synthrad").IDS
    for given, regions in (
        ("data", ("brain", "pelvis")),
        ("data/Task1", ("brain", "pelvis")),
        ("data/Task1/brain", ("brain",)),
    ):
        dataset = SynthradSource(SynthradOptions(root=str(tmp_path / given))).load(0)
        assert {s.id for s in dataset.subjects} == {name for region in regions for name in table[region]}
    assert {s.id: s.site for s in dataset.subjects}["1BB010"] == "B"
    with pytest.raises(UserError, match="not in this folder") as caught:
        SynthradSource(SynthradOptions(root=str(tmp_path / "data/Task1/brain/1BA001"))).read(0)
    assert caught.value.nearest == f"data.root={tmp_path / 'data/Task1/brain'}"


def test_metaimage_keeps_values_and_place(layouts, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    options = layouts("synthrad", tmp_path, "make_2025")
    dataset = SynthradSource(SynthradOptions(**options)).load(0)
    assert {s.id for s in dataset.subjects} == {"1HNA001", "1HND014", "1THB011", "1ABA005"}
    scan = dataset.subjects[1].scans["ct"]
    ours = read_image(scan.image)
    theirs = sitk.ReadImage(str(next(tmp_path.rglob(f"{dataset.subjects[1].id}/ct.mha"))))
    assert np.array_equal(ours.array, sitk.GetArrayFromImage(theirs).transpose(2, 1, 0))
    # ITK's patient space is LPS, ours RAS
    for index in ((0, 0, 0), (15, 3, 11)):
        place = np.array(theirs.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        assert np.allclose(ours.grid.to_world(np.array([index], float))[0], place, atol=1e-4)


def test_synthrad_without_ct_and_with_labels_of_ones_own(layouts, tmp_path: Path, capsys) -> None:
    options = layouts("synthrad", tmp_path / "data")
    (tmp_path / "data/Task1/brain/1BA001/ct.nii.gz").unlink()
    dataset = SynthradSource(SynthradOptions(**options)).load(0)
    assert set(next(s for s in dataset.subjects if s.id == "1BA001").scans) == {"mr"}
    assert dict(dataset.structures) == {"body_outline": 1}
    folder = tmp_path / "organs"
    for name in ("1BA005", "1PA001"):
        layouts.volumes.label(folder / f"{name}.nii.gz", [3])
    (folder / "structures.yaml").write_text("structures: {brain: 3}\n")
    own = SynthradSource(SynthradOptions(**options, labels=str(folder))).load(0)
    assert {s.id for s in own.subjects} == {"1BA005", "1PA001"}
    assert "4 of 6 patients have no label map and are left out" in capsys.readouterr().err
    assert dict(own.structures) == {"brain": 3}
    (tmp_path / "data/Task1/brain/1BA005/mr.nii.gz").unlink()
    with pytest.raises(UserError, match="patient 1BA005 has no mr"):
        SynthradSource(SynthradOptions(**options)).read(0)


def test_umd_reads_what_the_patterns_say(layouts, tmp_path: Path) -> None:
    options = layouts("umd", tmp_path)
    dataset = UmdSource(UmdOptions(**options)).load(0)
    assert dict(dataset.structures) == {name: i for i, name in enumerate(anatomy.UMD13, 1)}
    assert {s.id: tuple(sorted(s.scans)) for s in dataset.subjects} == {
        f"{cohort}_{n:03d}": pair
        for cohort, pair in (("petct", ("ct", "pet")), ("petmr", ("mr", "pet")))
        for n in (1, 2, 3, 4)
    }
    # one mask for both members of a pair
    assert all(len({scan.label for scan in s.scans.values()}) == 1 for s in dataset.subjects)
    flat = tmp_path / "flat"
    for stem, modality in (("p1_CT", "ct"), ("p1_PT", "pet")):
        layouts.volumes.image(flat / f"{stem}.nii.gz", modality)
    layouts.volumes.label(flat / "p1_seg.nii.gz", [2])
    patterns = {"image": "{subject}_{modality}.nii.gz", "label": "{subject}_seg.nii.gz"}
    (flat / "names.yaml").write_text("structures: {liver: 2}\n")
    own = UmdSource(UmdOptions(root=str(flat), structures_file=str(flat / "names.yaml"), **patterns)).load(0)
    assert [(s.id, sorted(s.scans)) for s in own.subjects] == [("p1", ["ct", "pet"])]


def test_umd_refuses_patterns_and_folders_that_do_not_fit(layouts, tmp_path: Path) -> None:
    options = layouts("umd", tmp_path)
    for key, pattern in (
        ("image", "{subject}.nii.gz"),
        ("label", "mask.nii.gz"),
        ("image", "{subjct}{modality}"),
    ):
        with pytest.raises(UserError) as caught:
            UmdOptions(**{key: pattern}).validate()
        assert caught.value.where == f"data.{key}"
    with pytest.raises(UserError, match="no scans found"):
        UmdSource(UmdOptions(root=str(tmp_path), image="{subject}/{modality}.nii")).read(0)
    (tmp_path / "petct/002/mask.nii.gz").unlink()
    with pytest.raises(UserError, match="1 of 8 subjects have no mask: petct_002"):
        UmdSource(UmdOptions(**options)).read(0)
    layouts.volumes.image(tmp_path / "petct/003/pt.nii.gz", "pet")
    with pytest.raises(UserError, match="subject 003 has two pet scans"):
        UmdSource(UmdOptions(**options)).read(0)
