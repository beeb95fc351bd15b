"""umdseg check on the command line: table on standard output, the rest on standard error, exit status."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from umdseg.cli import main


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UMDSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    label = np.zeros((20, 20, 20), np.uint8)
    label[8:14, 8:14, 8:14] = 1
    affine = np.diag([8.0, 8, 8, 1])
    rows = ["subject,modality,image,label,units,split"]
    for number in range(8):
        for modality, air, units in (("ct", -1000, "HU"), ("pet", 0, "SUV")):
            body = np.full(label.shape, air, np.float32)
            noise = np.random.default_rng(number).random(label.shape)
            body[3:17, 3:17, 3:17] = (40 if modality == "ct" else 1) + noise[3:17, 3:17, 3:17]
            nib.save(nib.Nifti1Image(body, affine), tmp_path / f"{number}_{modality}.nii.gz")
            nib.save(nib.Nifti1Image(label, affine), tmp_path / f"{number}_{modality}_label.nii.gz")
            files = f"{number}_{modality}.nii.gz,{number}_{modality}_label.nii.gz"
            rows.append(f"P{number},{modality},{files},{units},{'train' if number < 2 else 'test'}")
    (tmp_path / "my.csv").write_text("\n".join(rows))
    (tmp_path / "my.yaml").write_text("structures: {liver: 1}")
    return tmp_path / "my.csv"


def test_clean_data_give_0_and_say_how_to_start(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["data=petct", f"data.manifest={manifest}", "fit.steps=3"]
    assert main(["check", "--deep", *overrides]) == 0
    out, _ = capsys.readouterr()
    lines = out.strip().splitlines()
    assert {line.split()[1] for line in lines if line and not line.startswith("Nothing")} == {"pass"}
    assert lines[-1] == f"Nothing is refused: umdseg train {' '.join(overrides)}"
    for name in ("configuration", "memory", "time", "disk", "voxels"):
        assert any(line.startswith(name) for line in lines)


def test_flags_stand_anywhere_and_refusals_give_1(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (manifest.parent / "3_pet.nii.gz").write_bytes(b"")
    assert main(["check", "data=petct", "-v", f"data.manifest={manifest}", "--door", "evaluate"]) == 1
    out, err = capsys.readouterr()
    assert "3_pet.nii.gz (subject P3)" in out
    assert out.strip().endswith("Mend what is refused (1 problem), then check again.")
    assert "refuse" not in err


def test_a_mistake_in_the_configuration_gives_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "adapter.rnak=3"]) == 1
    out, _ = capsys.readouterr()
    assert "did you mean: adapter.rank" in out


def test_pictures_need_voxels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--qc", "pictures"]) == 1
    assert "add --deep" in capsys.readouterr().err
