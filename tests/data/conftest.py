"""Tiny paired datasets on disk, written with nibabel alone (not with the code under test)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

HEADER = "subject,modality,image,label,units,tracer_or_sequence,split,site"
CT_AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])
PET_AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
CT_AFFINE[:3, 3] = (46.0, 46.0, -36.0)
PET_AFFINE[:3, 3] = (-46.0, -46.0, -34.0)


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@dataclass
class Paired:
    """A manifest with its files; `rows` may be changed before `write`."""

    folder: Path
    rows: list[str]
    structures: str = "structures: {liver: 3, spleen: 1}\n"

    @property
    def csv(self) -> Path:
        return self.folder / "mine.csv"

    def write(self) -> Path:
        self.csv.write_text("\n".join([HEADER, *self.rows]) + "\n")
        (self.folder / "mine.yaml").write_text(self.structures)
        return self.csv

    def file(self, subject: str, modality: str, kind: str = "image") -> Path:
        return self.folder / subject / f"{modality}_{kind}.nii.gz"


def _scan(folder: Path, modality: str, seed: int) -> None:
    """A bright box (liver, id 3) and a small one (spleen, id 1) at the same millimetres in both scans."""
    affine, shape = (CT_AFFINE, (48, 48, 26)) if modality != "pet" else (PET_AFFINE, (24, 24, 19))
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    label = np.zeros(shape, dtype=np.uint8)
    label[(np.abs(world - [10, 0, 0]) < [18, 20, 14]).all(axis=-1)] = 3
    label[(np.abs(world - [-30, 10, 5]) < 8).all(axis=-1)] = 1
    noise = np.random.default_rng(seed).normal(size=shape)
    image = {"ct": -900.0, "pet": 0.5, "mr": 10.0}[modality] + label * {"ct": 330.0, "pet": 2.0, "mr": 90.0}[
        modality
    ]
    save(folder / f"{modality}_image.nii.gz", (image + 0.1 * noise).astype(np.float32), affine)
    save(folder / f"{modality}_label.nii.gz", label, affine)


@pytest.fixture
def paired(tmp_path: Path) -> Callable[..., Paired]:
    """Build a manifest: `paired({"A": ("ct", "pet"), ...}, splits={"A": "train"})`."""

    def build(subjects: dict[str, tuple[str, ...]], splits: dict[str, str] | None = None) -> Paired:
        rows = []
        for number, (name, modalities) in enumerate(subjects.items()):
            for modality in modalities:
                _scan(tmp_path / name, modality, number)
                units = {"ct": "HU", "pet": "SUV", "mr": "a.u."}[modality]
                files = f"{name}/{modality}_image.nii.gz,{name}/{modality}_label.nii.gz"
                tracer = {"pet": "FDG", "mr": "T1", "ct": ""}[modality]
                rows.append(
                    f"{name},{modality},{files},{units},{tracer},{(splits or {}).get(name, 'test')},here"
                )
        return Paired(tmp_path, rows)

    return build


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMDSEG_CACHE", str(tmp_path / "cache"))
