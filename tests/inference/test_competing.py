"""Classes of one softmax: the winner is the argmax over all classes, whatever is asked for."""

from __future__ import annotations

import numpy as np
import torch

from umdseg.backbones.base import Backbone
from umdseg.data.geometry import Grid
from umdseg.inference.linear import ClassSampler

GRID = Grid((4, 5, 6), np.eye(4))
LOGITS = torch.randn(5, 4, 5, 6, generator=torch.Generator().manual_seed(0))
CANVAS = torch.cat([LOGITS, torch.ones(1, 4, 5, 6)])


def test_a_class_is_positive_exactly_where_it_wins() -> None:
    found = ClassSampler(CANVAS, GRID, None, [[1], [2], [3, 4]], compete=True).on(GRID)
    winner = LOGITS.argmax(dim=0)
    for k, own in enumerate(([1], [2], [3, 4])):
        assert torch.equal(found[k] > 0, torch.isin(winner, torch.tensor(own)))


def test_where_nobody_looked_there_is_background() -> None:
    canvas = CANVAS.clone()
    canvas[-1, :2] = 0
    found = ClassSampler(canvas, GRID, None, [[1]], compete=True).on(GRID)
    assert (found[:, :2] == -10).all()


def test_class_logits_are_those_of_softmax_probabilities() -> None:
    class Fixed:
        class card:
            members = staticmethod(lambda name: {"pair": ("a", "b")}.get(name, (name,)))

        index = staticmethod({"a": 1, "b": 2, "c": 3}.__getitem__)

    found = Backbone.class_logits(Fixed(), LOGITS[None], ["a", "pair", "c"])[0]
    p = LOGITS.softmax(dim=0)
    torch.testing.assert_close(found.sigmoid(), torch.stack([p[1], p[1] + p[2], p[3]]))
