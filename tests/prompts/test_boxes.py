"""Boxes around masks, in patient millimetres."""

from __future__ import annotations

import numpy as np
import pytest

from umdseg.data.geometry import Grid
from umdseg.prompts.box import BoxPrompts
from umdseg.prompts.boxes import loosened, tight_box
from umdseg.registry import resolve
from umdseg.vocabulary import Prompt


def mask_of(shape, low, high):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = True
    return mask


def test_faces_of_the_outermost_voxels_count() -> None:
    """Voxels 2 to 4, 3 to 3, 1 to 5 of 2 x 1 x 3 mm, the first axis running to the left."""
    affine = np.diag([-2.0, 1.0, 3.0, 1.0])
    affine[:3, 3] = (10.0, -5.0, 100.0)
    box = tight_box(mask_of((8, 6, 7), (2, 3, 1), (4, 3, 5)), Grid((8, 6, 7), affine))
    assert box == ((1.0, -2.5, 101.5), (7.0, -1.5, 116.5))
    assert tight_box(np.zeros((8, 6, 7), bool), Grid((8, 6, 7), affine)) is None


def test_on_oblique_voxels_the_box_holds_every_corner_of_every_voxel() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 2.0, 4.0])
    mask = np.random.default_rng(1).random((9, 8, 7)) > 0.97
    box = tight_box(mask, Grid(mask.shape, affine))
    halves = np.array(np.meshgrid(*[(-0.5, 0.5)] * 3)).reshape(3, -1).T
    corners = (np.argwhere(mask)[:, None] + halves).reshape(-1, 3) @ affine[:3, :3].T
    np.testing.assert_allclose(box, (corners.min(axis=0), corners.max(axis=0)))


def test_margin_moves_faces_outwards_and_jitter_moves_them_by_no_more_than_asked() -> None:
    box = ((0.0, 0.0, 0.0), (40.0, 30.0, 4.0))
    assert loosened(box, 5.0, 0.0, np.random.default_rng(0)) == ((-5.0, -5.0, -5.0), (45.0, 35.0, 9.0))
    drawn = np.array([loosened(box, 0.0, 3.0, np.random.default_rng(seed)) for seed in range(200)])
    moved = np.abs(drawn - np.array(box))
    # the short edge is 4 mm: a quarter of it, so that a box remains
    assert (moved.max(axis=(0, 1)) <= [3.0, 3.0, 1.0]).all()
    assert (moved.max(axis=(0, 1)) > [2.7, 2.7, 0.9]).all()
    assert (drawn[:, 0] < drawn[:, 1]).all()
    assert loosened(box, 0.0, 3.0, np.random.default_rng(7)) == loosened(
        box, 0.0, 3.0, np.random.default_rng(7)
    )


def test_structures_without_a_box_are_not_asked_for() -> None:
    boxes = {"liver": ((0.0, 0.0, 0.0), (4.0, 5.0, 6.0))}
    assert BoxPrompts().for_subject(["spleen", "liver"], boxes) == [
        Prompt("liver", "box", box=boxes["liver"])
    ]
    assert resolve("prompt", "box")().kind == "box"


@pytest.mark.parametrize("name", ["box_margin_mm", "box_jitter_mm"])
def test_boxes_do_not_shrink_by_option(name) -> None:
    from umdseg.errors import UserError
    from umdseg.evaluation.options import EvaluationOptions

    with pytest.raises(UserError, match="mm"):
        EvaluationOptions(**{name: -1.0}).validate()
