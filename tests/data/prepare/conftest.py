"""A small hospital: patients with CT, PET and MR of one body, contours, and identifying tags."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

SUV1 = 3400  # Bq/ml, about the injected activity per body weight of the writer's PET header
PLANTED = {
    "PatientName": "Plantedname^Erika",
    "PatientBirthDate": "19610203",
    "AccessionNumber": "ACC4711",
    "InstitutionName": "Plantedclinic",
    "StudyDescription": "planted study words",
    "SeriesDescription": "planted series words",
    "OperatorsName": "Plantedoperator",
    "StudyDate": "20190807",
}


@dataclass
class Hospital:
    """Writes patients below `root`; `files` keeps the series by patient and modality."""

    root: Path
    dicom: ModuleType
    labels: ModuleType
    files: dict[tuple[str, str], list[Path]] = field(default_factory=dict)

    def patient(
        self, name: str, modalities: Sequence[str] = ("CT", "PT"), folder: str | None = None, **tags: object
    ) -> None:
        """One study in one frame of reference of its own, unless `tags` say otherwise."""
        number = sum(map(ord, name))
        own = {
            "StudyInstanceUID": f"1.2.3.4.5.{number}",
            "FrameOfReferenceUID": f"1.2.3.4.6.{number}",
            **PLANTED,
        }
        for modality in modalities:
            self.files[name, modality] = self.series(
                f"{folder or name}/{modality}", modality, patient=name, **{**own, **tags}
            )

    def series(self, folder: str, modality: str, **tags: object) -> list[Path]:
        if modality == "PT":
            tags.setdefault("CorrectedImage", ["NORM", "DTIM", "ATTN", "SCAT", "DECY"])
        count = int(tags.pop("count", 8))
        return self.dicom.write_series(
            self.root / folder,
            modality,
            stored=body(modality, count),
            spacing=(4.0, 4.0),
            origin=(-22.0, -22.0, 0.0),
            **tags,
        )

    def contours(
        self, name: str, modality: str, rois: dict[str, tuple[float, float]], **more: object
    ) -> Path:
        """Squares of +- half a side around a centre (x = y) on slices at 6, 9 and 12 mm."""
        drawn = {
            roi: [self.labels.box((c - h, c + h), (c - h, c + h), z) for z in (6.0, 9.0, 12.0)]
            for roi, (c, h) in rois.items()
        }
        path = self.root / f"{name}-rt" / f"{modality}-{len(self.files)}.dcm"
        self.files[name, f"RT-{modality}"] = [path]
        return self.labels.write_rtstruct(path, self.files[name, modality], drawn, **more)


def body(modality: str, count: int = 8) -> np.ndarray:
    """(slice, row, column) stored values of a 12 x 12 scan: air around a body with a bright spot."""
    stored = np.full((count, 12, 12), {"CT": 24, "PT": 20, "MR": 3}[modality], np.int16)
    stored[:, 2:10, 2:10] = {"CT": 1064, "PT": SUV1, "MR": 200}[modality]
    stored[2:5, 5:8, 5:8] = {"CT": 1164, "PT": 3 * SUV1, "MR": 300}[modality]
    return stored


@pytest.fixture
def hospital(tmp_path, dicom, dicom_labels) -> Hospital:
    return Hospital(tmp_path / "scanner", dicom, dicom_labels)


@pytest.fixture(autouse=True)
def key_file(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "key" / "pseudonym.key"
    monkeypatch.setenv("UMDSEG_KEY_FILE", str(path))
    return path


@pytest.fixture
def no_pictures(monkeypatch) -> Callable[..., None]:
    """Drawing takes seconds; what it draws has tests of its own."""

    def picture(subject, path, structures):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture")

    monkeypatch.setitem(sys.modules, "umdseg.data.qc", SimpleNamespace(picture=picture))
    return picture
