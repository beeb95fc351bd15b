"""A paired data set small enough to run the doors on."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SPACING = {"ct": 6.0, "pet": 8.0, "mr": 6.0}
UNITS = {"ct": "HU", "pet": "SUV", "mr": "a.u."}


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four subjects with a liver and a structure the models do not know, as bright boxes in three scans."""
    root = tmp_path_factory.mktemp("paired")
    rng = np.random.default_rng(0)
    rows = ["subject,modality,image,label,units,tracer_or_sequence,split,site"]
    for number, split in enumerate(("train", "train", "test", "test")):
        for modality, spacing in SPACING.items():
            size = int(144 / spacing)
            label = np.zeros((size, size, size), dtype=np.uint8)
            third = size // 3
            label[third : 2 * third, third : 2 * third, 2 : size // 2] = 1
            label[third : 2 * third, third : 2 * third, size // 2 : size - 2] = 2
            image = (40.0 * label + rng.normal(60, 5, label.shape)) / (20 if modality == "pet" else 1)
            for kind, array in (("image", image.astype(np.float32)), ("label", label)):
                file = nib.Nifti1Image(array, np.diag([spacing, spacing, spacing, 1]))
                nib.save(file, root / f"s{number}_{modality}_{kind}.nii.gz")
            names = f"s{number}_{modality}_image.nii.gz,s{number}_{modality}_label.nii.gz"
            rows.append(f"s{number},{modality},{names},{UNITS[modality]},,{split},here")
    (root / "subjects.csv").write_text("\n".join(rows) + "\n")
    (root / "subjects.yaml").write_text("structures: {liver: 1, tumour: 2}\n")
    return root / "subjects.csv"


@pytest.fixture
def small(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of a run that takes seconds, with its cache and its runs in a temporary folder."""
    monkeypatch.setenv("UMDSEG_CACHE", str(tmp_path / "cache"))
    tiny = ["data=petct", "model.weights=random", "prompt=auto", "limit_subjects=1", "data.batch_size=1"]
    tiny += ["data.patches_per_epoch=3", "evaluation.bootstrap=100"]
    tiny += ["callbacks.checkpoint_every=1", "trainer.log_every_n_steps=1"]
    return [*tiny, f"data.manifest={manifest}", f"runs_dir={tmp_path / 'runs'}"]
