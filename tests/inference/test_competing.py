"""Classes of one softmax: the winner is the argmax over all classes, whatever is asked for."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks import nets

from umdseg import inference
from umdseg.backbones.base import Backbone
from umdseg.backbones.monai_cnn import cards
from umdseg.backbones.monai_cnn.networks import SegResNet, SegResNetDS
from umdseg.data.geometry import Grid, Volume
from umdseg.inference.classes import ClassScores
from umdseg.inference.linear import ClassSampler
from umdseg.inference.stitch import stitch

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


def planted(rows: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
    """(N + 1, ...) canvas of all logits, from a body of C channels of which the first plane was not seen."""
    logits = torch.einsum("nc,cxyz->nxyz", rows[:, :-1], body) + rows[:, -1, None, None, None]
    logits[:, :1] = 0
    looked = torch.ones(1, *body.shape[1:])
    looked[:, :1] = 0
    return torch.cat([logits, looked])


def test_weighing_a_stitched_head_input_equals_stitching_all_logits() -> None:
    draw = torch.Generator().manual_seed(1)
    rows = torch.randn(37, 4, generator=draw)
    body = torch.randn(3, 6, 5, 7, generator=draw)
    body[:, :1] = 0
    logits = planted(rows, body)
    canvas = torch.cat([body, logits[-1:]])
    groups = [[1], [36], [3, 20, 35], [5]]
    grid = Grid((6, 5, 7), np.diag([2.0, 2.0, 3.0, 1.0]))
    turned = np.diag([1.3, 1.3, 1.3, 1.0])
    turned[:3, :3] @= np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    for target in (grid, Grid((9, 8, 12), turned)):
        ours = ClassSampler(canvas, grid, rows, groups, compete=True).on(target)
        plain = ClassSampler(logits, grid, None, groups, compete=True).on(target)
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-4)
        assert (plain == -10).any()


NETWORKS = {
    "monai_wholebody": (
        lambda: SegResNet(
            cards.monai_wholebody(),
            nets.SegResNet(init_filters=8, out_channels=105, dropout_prob=0.2, blocks_down=(1,) * 4),
        ),
        8,
    ),
    "ctfm_wholebody": (
        lambda: SegResNetDS(
            cards.ctfm_wholebody(),
            nets.SegResNetDS(init_filters=4, out_channels=118, blocks_down=(1,) * 5, dsdepth=4),
        ),
        4,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_head_narrower_than_its_classes_is_stitched_in_its_input(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, channels = NETWORKS[name]
    torch.manual_seed(0)
    backbone = make().eval()
    backbone.card = replace(backbone.card, window=(32, 32, 32), crop=None)
    backbone.add_structures(["tumour"])
    draw = np.random.default_rng(0)
    image = draw.normal(0, 300, (40, 36, 44)).astype(np.float32)
    volume = Volume(image, Grid(image.shape, np.diag([1.5, 1.5, 1.5, 1.0])))
    asked = ["liver", "spleen", "lung", "tumour"]
    assert set(asked) & set(backbone.card.groups), "a group is among them"
    held: list[int] = []

    def counting(*arguments: Any) -> torch.Tensor:
        canvas = stitch(*arguments)
        held.append(len(canvas))
        return canvas

    monkeypatch.setattr("umdseg.inference.window.stitch", counting)

    def answer() -> torch.Tensor:
        session = inference.open(backbone, volume, "ct", precision="fp32", skip_air=False)
        return torch.cat([piece for _, piece in session.scores(asked)], dim=3)

    ours = answer()
    monkeypatch.setattr(type(backbone), "competing_rows", lambda self: None)
    plain = answer()
    # all classes, the learned one, and "somebody looked"; or the head's input, and that
    assert held == [channels + 1, {"monai_wholebody": 105, "ctfm_wholebody": 118}[name] + 2]
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-4)
    assert float(plain.std()) > 0.01


def test_a_head_wider_than_its_classes_is_stitched_in_logits() -> None:
    net = nets.SegResNet(init_filters=8, out_channels=3, blocks_down=(1,) * 2, blocks_up=(1,))
    backbone = SegResNet(replace(cards.monai_wholebody(), structures={"liver": 1, "spleen": 2}), net)
    rows = backbone.competing_rows()
    assert rows is not None
    assert rows.shape == (3, 9)
    held: list[int] = []

    def stitched(predict: Any) -> torch.Tensor:
        found = predict(torch.zeros(1, 1, 16, 16, 16), (slice(0, 16),) * 3)
        held.append(len(found))
        return torch.cat([found, torch.ones_like(found[:1])])

    grid = Grid((16, 16, 16), np.eye(4))
    ClassScores(backbone, grid, stitched, lambda part, _: backbone.encode(part), nullcontext).sampler(
        ["liver"]
    )
    assert held == [3]
