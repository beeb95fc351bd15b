"""Small paired bodies on disk, written with nibabel alone: an ellipsoid with a liver and a spleen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

GRIDS = {"ct": ((48, 36, 30), 8.0), "pet": ((40, 30, 24), 10.0), "mr": ((48, 36, 30), 8.0)}
VALUES = {"ct": (-1000.0, 40.0, 110.0), "pet": (0.0, 1.0, 5.0), "mr": (2.0, 300.0, 500.0)}
UNITS = {"ct": "HU", "pet": "SUV", "mr": "a.u."}


def scan(
    folder: Path, modality: str, shift: tuple[float, float, float] = (0, 0, 0), mirrored: bool = False
) -> None:
    """Image and label of one modality; `shift` moves the body (mm), `mirrored` swaps left and right."""
    shape, spacing = GRIDS[modality]
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    world = (
        np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]
    )
    world = world - np.array(shift)
    side = -1 if mirrored else 1  # RAS+: the liver, on the right, has the larger x
    air, tissue, organ = VALUES[modality]
    noise = np.random.default_rng(len(str(folder)) + len(modality)).normal(size=shape)
    image = np.where(((world / [140, 90, 110]) ** 2).sum(-1) < 1, tissue, air) + noise * 0.01 * abs(tissue)
    label = np.zeros(shape, np.uint8)
    label[(np.abs(world - [side * 60, 0, 0]) < [40, 40, 40]).all(-1)] = 1
    label[(np.abs(world - [side * -80, 0, 0]) < [20, 25, 25]).all(-1)] = 2
    image[label > 0] += organ - tissue
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("", np.maximum(image, 0) if modality == "pet" else image), ("_label", label)):
        dtype = np.uint8 if name else np.float32
        nib.save(nib.Nifti1Image(array.astype(dtype), affine), folder / f"{modality}{name}.nii.gz")


@pytest.fixture
def bodies(tmp_path: Path) -> Callable[..., Path]:
    """Write a manifest of `count` subjects with the modalities; even ones train, odd ones are tested."""

    def build(count: int = 2, modalities: tuple[str, ...] = ("ct", "pet"), **options) -> Path:
        rows = ["subject,modality,image,label,units,tracer_or_sequence,split,site"]
        for number in range(count):
            name = f"P{number}" + "x" * number
            for modality in modalities:
                scan(tmp_path / name, modality, **(options if modality != "ct" else {}))
                files = f"{name}/{modality}.nii.gz,{name}/{modality}_label.nii.gz"
                split = "test" if number % 2 else "train"
                rows.append(f"{name},{modality},{files},{UNITS[modality]},,{split},A")
        (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
        (tmp_path / "mine.yaml").write_text("structures: {liver: 1, spleen: 2}\n")
        return tmp_path / "mine.csv"

    return build


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMDSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
