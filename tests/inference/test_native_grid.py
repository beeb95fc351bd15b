"""Results on the scan's own grid, for scans stored in any orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from umdseg import inference
from umdseg.backbones import Backbone, Features, Intensity
from umdseg.backbones.vista3d_cards import vista3d_tiny_card
from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import write_volume
from umdseg.vocabulary import Prompt, Scan


class Threshold(Backbone):
    """Says "liver" where the image is bright; a click paints a ball of 15 mm around itself."""

    def __init__(self) -> None:
        super().__init__()
        self.card = replace(
            vista3d_tiny_card(),
            spacing=(4.0, 4.0, 4.0),
            window=(24, 24, 24),
            intensity={"ct": Intensity("window", 0.0, 100.0)},
        )
        self.net = torch.nn.Linear(1, 1)
        self.new_structures = {}

    def encode(self, image: torch.Tensor, affine: torch.Tensor | None = None) -> Features:
        assert affine is not None
        assert tuple(image.shape[2:]) == self.card.window, "every window has the card's size"
        return Features([image], affine, self.card.window)

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        planes = []
        for prompt in prompts:
            if prompt.kind == "auto":
                planes.append(20 * features.maps[0][:, 0] - 10)
                continue
            axes = [torch.arange(n, dtype=torch.float64) for n in features.shape]
            index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
            world = index @ features.affine[0, :3, :3].T + features.affine[0, :3, 3]
            distance = (world - torch.tensor(prompt.points[0], dtype=torch.float64)).norm(dim=-1)
            planes.append((15.0 - distance).float()[None])
        return torch.stack(planes, dim=1)


class DenseThreshold(Threshold):
    """The same with a linear last layer."""

    def dense(self, features: Features) -> torch.Tensor:
        image = features.maps[0]
        return torch.cat([image, torch.ones_like(image)], dim=1)

    def class_vectors(self, structures: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[20.0, -10.0]]).expand(len(structures), 2)


def rotation(degrees: float) -> NDArray[np.float64]:
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])


AFFINES = {
    "ras": np.diag([2.0, 2.0, 3.0]),
    "lps": np.diag([-2.0, -2.0, 3.0]),
    "permuted": np.array([[0, 0, -3.0], [2.0, 0, 0], [0, -2.0, 0]]),
    "oblique": rotation(20) @ np.diag([2.0, -2.0, 3.0]),
}
CENTRE = np.array([12.0, -30.0, 55.0])


def scan(axes: NDArray[np.float64]) -> tuple[Volume, NDArray[np.bool_]]:
    """A body (20) with an off-centre bright ellipsoid (80), drawn in patient millimetres."""
    shape = (70, 60, 50)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = CENTRE - axes @ (np.array(shape) - 1) / 2
    grid = Grid(shape, affine)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    world = grid.to_world(index).reshape(*shape, 3) - CENTRE
    body = (np.abs(world) < [48, 44, 52]).all(axis=-1)
    inside = (((world - [14, -9, 6]) / [22, 18, 27]) ** 2).sum(axis=-1) < 1
    return Volume(np.where(inside, 80.0, np.where(body, 20.0, 0.0)).astype(np.float32), grid), inside


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("backbone", [Threshold(), DenseThreshold()], ids=["decode", "dense"])
@pytest.mark.parametrize("name", AFFINES)
def test_the_map_lands_on_the_scan_as_it_lies_on_disk(name: str, backbone: Backbone, tmp_path: Path) -> None:
    volume, truth = scan(AFFINES[name])
    found = inference.segment(backbone, volume, ["liver"], modality="ct", precision="fp32")
    assert found.shape == volume.array.shape
    assert dice(found == 1, truth) >= 0.98
    centre = np.argwhere(found == 1).mean(axis=0) - np.argwhere(truth).mean(axis=0)
    assert np.abs(centre).max() < 0.2, "shifted by a part of a voxel"

    path = tmp_path / "ct.nii.gz"
    write_volume(volume, path)
    for image in (path, str(path)):
        assert np.array_equal(
            found, inference.segment(backbone, image, ["liver"], modality="ct", precision="fp32")
        )
    from_scan = inference.segment(backbone, Scan(path, "ct", "HU"), ["liver"], precision="fp32")
    assert np.array_equal(found, from_scan)


@pytest.mark.parametrize("name", AFFINES)
def test_one_click_in_millimetres_hits_one_place_on_every_grid(name: str) -> None:
    volume, _ = scan(AFFINES[name])
    where = CENTRE + np.array([14.0, -9.0, 6.0])
    session = inference.open(Threshold(), volume, "ct", precision="fp32")
    session.prompt([Prompt("liver", "point", (tuple(where),), (1,))])
    found = inference.label_map(session, ["liver"]) == 1
    centre = volume.grid.to_world(np.argwhere(found)).mean(axis=0)
    assert np.abs(centre - where).max() < 0.5
    # a ball of 15 mm radius has 14.1 ml
    assert found.sum() * volume.grid.voxel_ml == pytest.approx(4 / 3 * np.pi * 1.5**3, rel=0.05)


def test_scores_on_another_grid_and_beyond_the_scan() -> None:
    volume, _ = scan(AFFINES["lps"])
    session = inference.open(Threshold(), volume, "ct", precision="fp32")
    wide = Grid(
        (40, 40, 60), np.array([[5.0, 0, 0, -90], [0, 5.0, 0, -130], [0, 0, 5.0, -100], [0, 0, 0, 1]])
    )
    index = np.stack(np.meshgrid(*map(np.arange, wide.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    world = wide.to_world(index).reshape(*wide.shape, 3) - CENTRE
    truth = (((world - [14, -9, 6]) / [22, 18, 27]) ** 2).sum(axis=-1) < 1
    logits = torch.cat([part for _, part in session.scores(["liver"], wide)], dim=-1)[0].numpy()
    assert logits.shape == wide.shape
    assert dice(logits > 0, truth) > 0.97
    beyond = (np.abs(world) > [72, 62, 78]).any(axis=-1)
    assert (logits[beyond] == -10).all()
