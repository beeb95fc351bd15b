"""Windows around clicks: where they lie, what they hold, how they grow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from umdseg import inference
from umdseg.backbones.base import Features
from umdseg.backbones.sam3d import Sam3d
from umdseg.backbones.sam3d_cards import sam_med3d_turbo_card
from umdseg.data.geometry import Grid, Volume
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

EDGE = 32


class Threshold(Sam3d):
    """A segmenter whose answer is known: bright voxels, coarsely; notes what it sees."""

    def __init__(self, windows: int) -> None:
        card = replace(sam_med3d_turbo_card(), window=(EDGE, EDGE, EDGE), divisor=EDGE)
        super().__init__(card, torch.nn.Linear(1, 1), windows=windows)
        self.images: list[torch.Tensor] = []
        self.steps: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]] = []

    def encode(self, image: torch.Tensor, affine: torch.Tensor | None = None) -> Features:
        assert affine is not None
        self.images.append(image[0, 0])
        return Features([image], affine, (EDGE, EDGE, EDGE))

    def refine(
        self, embedding: torch.Tensor, coords: torch.Tensor, signs: torch.Tensor, low: torch.Tensor | None
    ) -> torch.Tensor:
        self.steps.append((embedding[0, 0], coords, signs, low))
        return functional.avg_pool3d(embedding - 500, 4)


def scan(shape: tuple[int, int, int], affine: np.ndarray, inside: np.ndarray) -> Volume:
    """1000 where `inside` (X, Y, Z), else 1."""
    assert inside.shape == shape
    return Volume(np.where(inside, 1000, 1).astype(np.float32), Grid(shape, affine))


def oblique(spacing: tuple[float, float, float], degrees: float, flips: tuple[int, int, int]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ np.diag(np.array(flips) * spacing)
    affine[:3, 3] = (37.0, -112.0, 410.0)
    return affine


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (0.8, 1.1, 4.0)])
@pytest.mark.parametrize("degrees", [0, 25])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_a_click_lands_on_its_structure_in_the_middle_of_the_window(
    spacing: tuple[float, float, float], degrees: float, flips: tuple[int, int, int]
) -> None:
    shape, voxel = (60, 50, 24), np.array([[41, 12, 17]])
    grid = Grid(shape, oblique(spacing, degrees, flips))
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    near = np.linalg.norm(grid.to_world(index) - grid.to_world(voxel), axis=1) < 6
    volume = scan(shape, grid.affine, near.reshape(shape))
    where = tuple(float(v) for v in grid.to_world(voxel.astype(float))[0])
    backbone = Threshold(windows=1)
    session = inference.open(backbone, volume, "ct")
    session.prompt([Prompt("liver", "point", (where,), (1,))])
    logits = torch.cat([part for _, part in session.scores(["liver"])], dim=-1)[0]
    seen, coords, signs, low = backbone.steps[0]
    assert torch.equal(coords.round(), torch.full((1, 3), EDGE / 2, dtype=coords.dtype))
    assert signs.tolist() == [1]
    assert low is None
    # the window is RAS: the voxel under the click is about as bright as the structure
    assert float(seen[16, 16, 16]) > 700
    # and back on the scan's own grid the answer lies where the click was
    assert float(logits[tuple(voxel[0])]) > 0
    found = index[(logits.numpy() > 0).reshape(-1)]
    assert np.abs(grid.to_world(found).mean(axis=0) - where).max() < max(spacing) / 2 + 1.5


def test_the_window_reaches_beyond_the_scan_and_holds_zeros_there() -> None:
    volume = scan((20, 20, 20), np.diag([1.5, 1.5, 1.5, 1.0]), np.ones((20, 20, 20), dtype=bool))
    backbone = Threshold(windows=1)
    session = inference.open(backbone, volume, "ct")
    session.prompt([Prompt("liver", "point", ((3.0, 15.0, 27.0),), (1,))])
    list(session.scores(["liver"]))
    window = backbone.images[0]
    # the click's voxel (2, 10, 18) is window voxel 16, so the scan starts at 14, 6, -2
    inside = torch.zeros(EDGE, EDGE, EDGE)
    inside[14:32, 6:26, 0:18] = 1000
    assert torch.equal(window, inside)


def bar() -> Volume:
    """A bar 3 windows long, 8 voxels wide, along the second axis."""
    inside = np.zeros((40, 120, 40), dtype=bool)
    inside[16:24, 8:112, 16:24] = True
    return scan((40, 120, 40), np.diag([1.5, 1.5, 1.5, 1.0]), inside)


@pytest.mark.parametrize(("windows", "share"), [(1, 0.31), (3, 0.62), (20, 0.95)])
def test_windows_grow_along_what_they_find(windows: int, share: float) -> None:
    volume, backbone = bar(), Threshold(windows)
    session = inference.open(backbone, volume, "ct")
    session.prompt([Prompt("aorta", "point", ((30.0, 90.0, 30.0),), (1,))])
    logits = torch.cat([part for _, part in session.scores(["aorta"])], dim=-1)[0]
    truth = torch.from_numpy(volume.array > 500)
    found = logits > 0
    assert float((found & truth).sum() / truth.sum()) == pytest.approx(share, abs=0.06)
    assert float((found & ~truth).sum() / truth.sum()) < 0.1
    # only neighbours along the bar are asked, never off its axis
    assert len(backbone.images) == {1: 1, 3: 3, 20: 7}[windows]
    for seen, coords, signs, low in backbone.steps[1:]:
        assert set(signs.tolist()) == {1}
        x, y, z = (int(v) for v in coords[0])
        assert float(seen[x, y, z]) == 1000
        assert low is not None
        led = functional.interpolate(low, size=(EDGE,) * 3)[0, 0] > 0
        assert bool(led.any())
        assert float(seen[led].min()) == 1000


def test_further_clicks_keep_the_window_far_ones_open_another_and_undo_takes_them_back() -> None:
    backbone = Threshold(windows=1)
    session = inference.open(backbone, bar(), "ct")
    near, far, outside = (30.0, 96.0, 30.0), (30.0, 20.0, 30.0), (30.0, 5000.0, 30.0)
    first = Prompt("aorta", "point", ((30.0, 90.0, 30.0),), (1,))
    session.prompt([first])
    one = torch.cat([part for _, part in session.scores(["aorta"])], dim=-1)
    session.prompt([replace(first, points=(*first.points, near), signs=(1, 0))])
    list(session.scores(["aorta"]))
    assert len(backbone.images) == 1
    assert backbone.steps[-1][2].tolist() == [1, 0]
    session.prompt([replace(first, points=(*first.points, far, outside), signs=(1, 1, 1))])
    two = torch.cat([part for _, part in session.scores(["aorta"])], dim=-1)
    assert len(backbone.images) == 2
    assert int((two > 0).sum()) > 1.5 * int((one > 0).sum())
    session.undo()
    session.undo()
    again = torch.cat([part for _, part in session.scores(["aorta"])], dim=-1)
    assert torch.equal(again, one)
    # negative clicks alone say nothing, and nothing is background
    session.prompt([Prompt("aorta", "point", (near,), (0,))])
    assert all(bool((part == -10).all()) for _, part in session.scores(["aorta"]))


def test_structures_nobody_clicked_on_are_refused() -> None:
    session = inference.open(Threshold(windows=1), bar(), "ct")
    with pytest.raises(UserError, match="no 'auto' prompts"):
        list(session.scores(["liver"]))
    with pytest.raises(UserError, match="no 'text' prompts"):
        session.prompt([Prompt("liver", "text", text="liver")])
