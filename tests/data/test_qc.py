"""QC pictures, read back as pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import write_volume
from umdseg.data.qc import picture
from umdseg.vocabulary import UNITS, Scan, Subject

# stored right to left, so that only millimetres tell where the structure lies
CT = Grid((60, 50, 40), np.array([[-2.0, 0, 0, 59], [0, -2, 0, 49], [0, 0, 3, -60], [0, 0, 0, 1]]))
PET = Grid((30, 25, 30), np.array([[4.0, 0, 0, -58], [0, 4, 0, -48], [0, 0, 4, -58], [0, 0, 0, 1]]))


def world(grid: Grid) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    return grid.to_world(index.reshape(-1, 3)).reshape(*grid.shape, 3)


def scan(folder: Path, modality: str, grid: Grid) -> Scan:
    """A body of water or SUV 1 in air; a bright ball on the patient's right (+x), front (+y) and top (+z)."""
    place = world(grid)
    ball = np.linalg.norm(place - (25, 20, 20), axis=-1) < 12
    body = (np.abs(place) < (50, 40, 55)).all(axis=-1)
    noise = np.random.default_rng(0).normal(0, 0.02, grid.shape)
    values = {"ct": (-1000.0, 0.0, 220.0), "pet": (0.0, 1.0, 6.0)}[modality]
    array = np.where(ball, values[2], np.where(body, values[1], values[0])) + np.abs(noise)
    image, label = folder / f"{modality}.nii.gz", folder / f"{modality}_label.nii.gz"
    write_volume(Volume(array.astype(np.float32), grid), image)
    write_volume(Volume((ball * 4).astype(np.int16), grid), label)
    return Scan(image, modality, UNITS[modality], label)  # type: ignore[arg-type,index]


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return Subject("sub-X", {"ct": scan(tmp_path, "ct", CT), "pet": scan(tmp_path, "pet", PET)})


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def panels(picture: np.ndarray, rows: int, columns: int) -> list[list[np.ndarray]]:
    """Cut a picture at its white gutters (titles and legend lie outside the outermost panels)."""
    height, width = picture.shape[:2]
    inner = picture[int(0.17 * height) : int(0.91 * height), int(0.04 * width) :]
    return [np.array_split(part, columns, axis=1) for part in np.array_split(inner, rows, axis=0)]


def test_the_patients_right_is_on_the_left_and_the_head_on_top(subject: Subject, tmp_path: Path) -> None:
    picture(subject, tmp_path / "qc.png", {"liver": 4})
    found = pixels(tmp_path / "qc.png")
    for row in panels(found, 2, 3):
        # the ball is the only white thing inside the CT's panel of black air and grey water
        white = (row[0].min(axis=-1) > 225) & (np.ptp(row[0], axis=-1) < 12)
        edge = 12
        y, x = np.nonzero(white[edge:-edge, edge:-edge])
        grey = np.argwhere((row[0].max(axis=-1) > 80) & (row[0].max(axis=-1) < 140))
        # right of the patient (x = 25 mm) on the left, and front or head (20 mm) in the upper half
        assert np.median(x) + edge < np.median(grey[:, 1])
        assert np.median(y) + edge < np.median(grey[:, 0])


def test_contours_fusion_and_common_field_are_drawn(subject: Subject, tmp_path: Path) -> None:
    picture(subject, tmp_path / "qc.png", {"liver": 4})
    found = pixels(tmp_path / "qc.png")
    orange = (np.abs(found - (0xE6, 0x9F, 0x00)).max(axis=-1) < 40).sum()
    # the CT is 120 x 100 x 120 mm like the PET: the common field's edge is that of the picture
    assert orange > 200
    small = replace(subject.scans["pet"], label=None)
    half = PET.crop((0, 0, 0), (18, 25, 20))
    from umdseg.data.io.nifti import read_image

    volume = read_image(small.image)
    write_volume(Volume(volume.array[:18, :, :20], half), tmp_path / "half.nii.gz")
    pair = {"ct": subject.scans["ct"], "pet": replace(small, image=tmp_path / "half.nii.gz")}
    picture(replace(subject, scans=pair), tmp_path / "half.png", {"liver": 4})
    cyan = (0x00, 0xE5, 0xFF)
    count = [(np.abs(pixels(tmp_path / n) - cyan).max(axis=-1) < 60).sum() for n in ("qc.png", "half.png")]
    assert count[1] > count[0] + 300


def test_nothing_is_refused_and_what_cannot_be_read_is_said(subject: Subject, tmp_path: Path) -> None:
    subject.scans["pet"].image.write_bytes(b"not an image")
    picture(subject, tmp_path / "broken.png", {"liver": 4})
    found = pixels(tmp_path / "broken.png")
    assert ((found[..., 0] > 150) & (found[..., 1] < 40)).any(), "the title in red"
    subject.scans["ct"].image.unlink()
    picture(subject, tmp_path / "none.png", {"liver": 4})
    assert pixels(tmp_path / "none.png").size


def test_the_file_says_nothing_about_where_the_scans_lie(subject: Subject, tmp_path: Path) -> None:
    picture(subject, tmp_path / "out" / "qc.png", {"liver": 4})
    content = (tmp_path / "out" / "qc.png").read_bytes()
    assert str(tmp_path).encode() not in content
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["qc.png"]
