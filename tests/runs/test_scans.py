"""Verdicts on scans: kept with stored evaluations, and refused by the doors before anything is computed."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import pytest

from umdseg.evaluation.cases import case_table
from umdseg.evaluation.scans import SCANS, read_scans, write_scans
from umdseg.runs import door
from umdseg.runs.zero_shot import ZeroShotStore


def test_a_stored_zero_shot_evaluation_brings_its_scans_along(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    row = {"subject": "a", "modality": "ct", "verdict": "warn", "reason": "clipped"}
    write_scans([row], first / SCANS)
    store = ZeroShotStore(tmp_path / "store")
    assert store.get(second) is None
    store.put(case_table([{"subject": "a", "status": "ok"}]), first)
    assert store.get(second) is not None
    assert read_scans(second / SCANS) == read_scans(first / SCANS)
    assert read_scans(second / SCANS)[0]["reason"] == "clipped"


def test_a_ct_rescaled_to_0_1_stops_the_run_with_one_clear_message(
    small: list[str], manifest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rescaled"
    shutil.copytree(manifest.parent, folder)
    for path in folder.glob("*_ct_image.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(image.get_fdata() / 200, image.affine), path)
    assert door.main("evaluate", [*small, f"data.manifest={folder / 'subjects.csv'}"]) == 1
    err = capfd.readouterr().err
    assert "ct in HU: values lie within" in err
    assert "s2_ct_image.nii.gz (subject s2)" in err
    assert "data.bad_intensity=warn" in err
    assert "Traceback" not in err
