"""autoPET: both layouts, patients with several studies, and the organ labels made for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from umdseg.data.io.nifti import read_label
from umdseg.data.sources.autopet import AutopetOptions, AutopetSource
from umdseg.errors import UserError


@pytest.fixture
def root(layouts, tmp_path: Path) -> Path:
    layouts("autopet", tmp_path / "autopet")
    return tmp_path / "autopet"


@pytest.fixture
def studies(layouts, tmp_path: Path) -> Path:
    layouts("autopet", tmp_path / "FDG-PET-CT-Lesions", "make_studies")
    return tmp_path / "FDG-PET-CT-Lesions"


def source(root: Path, **options) -> AutopetSource:
    return AutopetSource(AutopetOptions(root=str(root), **options))


def test_tracer_patient_and_site_come_from_the_case(root: Path, layouts) -> None:
    dataset = source(root).load(0)
    assert {s.id for s in dataset.subjects} == set(layouts.module("autopet").cases())
    for subject in dataset.subjects:
        tracer, patient = subject.id.split("_")[:2]
        assert subject.scans["pet"].tracer_or_sequence == tracer.upper()
        assert subject.patient == f"{tracer}_{patient}"
        assert subject.site == {"fdg": "UKT", "psma": "LMU"}[tracer]
    assert len({s.patient for s in dataset.subjects}) == 5
    assert dict(dataset.structures) == {"tumour": 1}


def test_published_folds(root: Path) -> None:
    first = source(root).read(0)
    assert {s.patient for s in first.of("test")} == {"fdg_0168f65af8", "psma_95b833d46f153cd2"}
    assert {s.patient for s in source(root, fold=1).read(0).of("test")} == {"fdg_a4cd2b10de"}
    with pytest.raises(UserError, match="no fold 2") as caught:
        source(root, fold=2).read(0)
    assert "0 to 1" in caught.value.expected


def test_a_published_fold_that_divides_a_patient_is_refused(root: Path) -> None:
    path = root / "splits_final.json"
    folds = json.loads(path.read_text())
    moved = folds[1]["val"].pop()
    folds[1]["train"].append(moved)
    path.write_text(json.dumps(folds))
    with pytest.raises(UserError, match="are one patient") as caught:
        source(root, fold=1).read(0)
    assert "data.folds=5" in caught.value.expected
    assert source(root, folds=2).read(0).of("test")


def test_without_published_folds(root: Path) -> None:
    (root / "splits_final.json").unlink()
    dataset = source(root).read(0)
    assert {s.split for s in dataset.subjects} == {""}
    with pytest.raises(UserError, match="no subject of dataset 'autopet' is in split 'train'") as caught:
        dataset.of("train")
    assert "data.folds=5" in caught.value.expected
    with pytest.raises(UserError, match="own folds are missing"):
        source(root, fold=1).read(0)
    (root / "splits_final.json").write_text("[{}]")
    with pytest.raises(UserError, match="not readable"):
        source(root).read(0)


def test_folder_of_studies(studies: Path) -> None:
    dataset = source(studies, folds=3).load(0)
    assert len(dataset.subjects) == 4
    assert {s.patient for s in dataset.subjects} == {"fdg_0168f65af8", "fdg_a4cd2b10de", "fdg_c38b168f1a"}
    assert {s.scans["ct"].image.name for s in dataset.subjects} == {"CTres.nii.gz"}
    (next(studies.glob("*/*/SEG.nii.gz"))).unlink()
    with pytest.raises(UserError, match=r"lacks SEG\.nii\.gz"):
        source(studies).read(0)


@pytest.mark.parametrize("layout", ["root", "studies"])
def test_autopet_organ_has_one_middle_lobe(layout: str, layouts, request, capsys) -> None:
    folder = request.getfixturevalue(layout)
    module = layouts.module("autopet")
    module.organ(folder / "AutoPET-OrganlabelsTr", layouts.volumes, coarse=layout == "studies")
    dataset = source(folder, labels="autopet_organ", folds=2).load(0)
    total = len(module.cases()) if layout == "root" else 4
    assert f"{total - 2} of {total} studies have no label in autopet_organ" in capsys.readouterr().err
    assert len(dataset.subjects) == 2
    for subject in dataset.subjects:
        ct, pet = subject.scans["ct"], subject.scans["pet"]
        assert ct.label == pet.label
        label = read_label(ct.label).array
        assert set(np.unique(label)) == {0, *range(1, 12)}
    assert dataset.structures["lung_middle_lobe_right"] == 11


def test_dap_atlas_keeps_the_confirmed_ids_on_the_original_ct(studies: Path, layouts) -> None:
    layouts.module("autopet").dap(studies / "ATLAS_DATASET", layouts.volumes)
    dataset = source(studies, labels="dap_atlas", folds=3).load(0)
    # of the patient with two studies, the one whose digits the file names
    assert sorted(s.id.split("-")[-1] for s in dataset.subjects) == ["15665", "47644", "82224"]
    for subject in dataset.subjects:
        assert subject.scans["ct"].image.name == "CT.nii.gz"
        label = read_label(subject.scans["pet"].label).array
        assert set(np.unique(label)) == {0, 2, 13, 15, 26}
        assert np.array_equal(label, layouts.volumes.blocks([2, 13, 15, 26]))
    assert dataset.structures["liver"] == 13


def test_a_folder_of_label_maps(layouts, shared_data: Path, tmp_path: Path) -> None:
    """The real label maps of autoPET III studies fit the cases whose blanks they lost."""
    folder = shared_data / "autopet3_organ_labels"
    names = sorted(path.name.removesuffix(".nii.gz") for path in folder.glob("*.nii.gz"))
    module = layouts.module("autopet")
    module.FDG = {}
    module.PSMA = {}
    for name in names:
        table, (_, patient, study) = (module.FDG if name[0] == "f" else module.PSMA), name.split("_", 2)
        study = study.replace("Ganzkoerper_primaer_mit", "Ganzkoerper  primaer mit")
        table.setdefault(patient, []).append(study.replace("CT_Ganz", "CT Ganz").replace("mit_KM", "mit KM"))
    module.make(tmp_path / "auto", layouts.volumes)
    dataset = source(tmp_path / "auto", labels=str(folder), folds=5).read(0)
    assert len(dataset.subjects) == len(names) == 17
    assert all(s.scans["pet"].label.parent == folder for s in dataset.subjects)
    assert sum("primaer mit" in s.id for s in dataset.subjects) == 8
    published = json.loads((folder / "label_ids.json").read_text())
    assert dict(dataset.structures) == {
        {"kidneys": "kidney", "lungs": "lung"}.get(name, name): int(id)
        for id, name in published.items()
        if id != "0"
    }


def test_label_folders_that_cannot_be_used(root: Path, layouts, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folder of label maps is missing"):
        source(root, labels="lesions").read(0)
    with pytest.raises(UserError, match="folder of label maps is missing") as caught:
        source(root, labels="dap_atlas").read(0)
    assert "data.labels_dir" in caught.value.where
    folder = tmp_path / "labels"
    folder.mkdir()
    with pytest.raises(UserError, match="no label maps"):
        source(root, labels=str(folder)).read(0)
    layouts.volumes.label(folder / "psma_other_2018-04-16.nii.gz", [1])
    with pytest.raises(UserError, match="nothing names the ids"):
        source(root, labels=str(folder)).read(0)
    (folder / "label_ids.json").write_text('{"0": "background", "1": "livr"}')
    with pytest.raises(UserError, match="unknown structure 'livr'"):
        source(root, labels=str(folder)).read(0)
    (folder / "label_ids.json").write_text('{"0": "background", "1": "liver"}')
    with pytest.raises(UserError, match="none of the 1 label maps fits a study"):
        source(root, labels=str(folder)).read(0)


@pytest.mark.parametrize("labels", ["lesion", "own_maps"])
def test_a_place_of_organ_labels_that_are_not_asked_for(labels: str) -> None:
    with pytest.raises(UserError, match=f"no use with data.labels={labels}") as caught:
        AutopetOptions(labels=labels, labels_dir="organs").validate()
    assert caught.value.where == "data.labels_dir"


def test_missing_and_unexpected_files(root: Path) -> None:
    case = "psma_ffcaa75377465b37_2018-03-04"
    for path, what in (
        (root / "labelsTr" / f"{case}.nii.gz", "1 of 7 cases have no label"),
        (root / "imagesTr" / f"{case}_0000.nii.gz", "1 of 7 cases have no CT"),
    ):
        path.unlink()
        with pytest.raises(UserError, match=what):
            source(root).read(0)
    shutil.copy(root / "imagesTr" / f"{case}_0001.nii.gz", root / "imagesTr" / "scan.nii.gz")
    with pytest.raises(UserError, match="unexpected names: scan"):
        source(root).read(0)
    with pytest.raises(UserError, match="not in this folder") as caught:
        source(root / "imagesTr").read(0)
    assert caught.value.nearest == f"data.root={root}"
