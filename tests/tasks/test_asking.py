"""How steps ask: shares by what a model takes, boxes, balance, and fitting of models without classes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from umdseg.adapters.full import FullTuning
from umdseg.adapters.gradient import trained_layers
from umdseg.adapters.lora import Lora, LoraOptions
from umdseg.adapters.reach import reachable
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError
from umdseg.tasks import FitOptions, SegmentTask
from umdseg.tasks.asking import Asking, shares
from umdseg.vocabulary import Batch

VISTA, CTMR = ("auto", "point", "clicks", "auto_point"), ("auto",)
SAM3D, MEDSAM, SAM = ("point", "clicks"), ("box",), ("point", "clicks", "box")


@pytest.mark.parametrize(
    ("takes", "given", "expected"),
    [
        (VISTA, {}, {"auto": 0.7, "point": 0.3}),
        (CTMR, {}, {"auto": 1.0}),
        (CTMR, {"point_share": 1.0}, {"auto": 1.0}),
        (SAM3D, {}, {"point": 1.0}),
        (SAM3D, {"point_share": 0.0}, {"point": 1.0}),
        (MEDSAM, {}, {"box": 1.0}),
        (SAM, {}, {"point": 1.0, "box": 0.0}),
        (SAM, {"box_share": 0.1}, {"point": 0.75, "box": 0.25}),
        (SAM, {"point_share": 0.0}, {"point": 0.5, "box": 0.5}),
    ],
)
def test_shares_follow_what_the_model_takes(takes, given, expected) -> None:
    assert shares(takes, FitOptions(**given)) == pytest.approx(expected)


def test_models_that_nothing_can_ask_are_refused() -> None:
    with pytest.raises(UserError, match="takes text prompts"):
        shares(("text",), FitOptions())


def batch(window: tuple[int, int, int], scale: float, spacing: float) -> Batch:
    """Two patches: a bright box is the liver, a dim one the spleen."""
    rng = torch.Generator().manual_seed(0)
    image = 0.1 * torch.rand(2, 1, *window, generator=rng)
    label = torch.zeros(2, 1, *window, dtype=torch.int16)
    x, y, _ = window
    image[:, :, : x // 2, : y // 2] += 0.8
    label[:, :, 2 : x // 2, 2 : y // 2] = 1
    image[:, :, x // 2 + 2 :, y // 2 :] += 0.4
    label[:, :, x // 2 + 2 :, y // 2 :] = 2
    affine = torch.diag(torch.tensor([-spacing, -spacing, spacing, 1.0])).expand(2, 4, 4).clone()
    return Batch(image * scale, label, affine, ["ct", "pet"], ["a", "b"], [], ("liver", "spleen"))


@pytest.fixture(params=["medsam", "sam_vit_b", "sam_med3d_turbo"])
def pointed(request, narrow) -> tuple[Backbone, Batch]:
    """A narrow model that has no classes, and patches for it."""
    if request.param == "sam_med3d_turbo":
        return narrow(request.param), batch((32, 32, 32), 100.0, 1.5)
    return narrow(request.param), batch((24, 20, 2), 255.0, 2.0)


def test_models_without_classes_are_fitted_with_default_options(pointed) -> None:
    backbone, given = pointed
    adapter = FullTuning(FullTuning.Options(name="full"))
    adapter.inject(backbone)
    task = SegmentTask(backbone, adapter, FitOptions(structures_per_step=1), given.structures)
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=1e-3)
    backbone.train()
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = task._step(given, 0)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    expected = {"medsam": {"box"}}.get(backbone.card.name, {"point", "clicks"})
    assert {asked.kind for asked in task.prompted} <= expected
    assert [asked.subject for asked in task.prompted] == ["a", "b"]
    # validation asks in the same way, and finds perfect answers where the model is the label itself
    task.validation_step(given, 0)
    assert set(task._dice.by_modality()) == {"ct", "pet"}

    given.label.zero_()
    nothing = task._step(given, 1)
    assert (nothing.item(), nothing.requires_grad, task.prompted) == (0.0, True, [])


@pytest.mark.parametrize("name", ["sam_vit_b", "medsam2", "sam_med3d_turbo"])
def test_each_way_of_pointing_can_be_tried_for_the_layers_it_reaches(narrow, name: str) -> None:
    backbone = narrow(name)
    Lora(LoraOptions(rank=2)).inject(backbone)
    layers = trained_layers(backbone.train())
    # a layer of no tensors is reached only where the pass could not be made
    asked = {**layers, "nowhere": ["no.tensor"]}
    for kind in {"point", "box"} & set(backbone.card.prompts):
        assert reachable(backbone, asked, kind) == layers.keys()


def test_training_boxes_hold_the_structure(narrow) -> None:
    backbone, given = narrow("medsam"), batch((24, 20, 2), 255.0, 2.0)
    asking = Asking(backbone, FitOptions(box_jitter_mm=0.0, box_margin_mm=3.0))
    one = given.take([0])
    box = asking.prompt(one, 1, "box", np.random.default_rng(0)).box
    # voxels 2..11 x 2..9 x 0..1 of 2 mm, x and y running to the left and to the front
    assert np.allclose(box, ((-23 - 3, -19 - 3, -1 - 3), (-3 + 3, -3 + 3, 3 + 3)))
    loose = (
        Asking(backbone, FitOptions(box_jitter_mm=2.0)).prompt(one, 1, "box", np.random.default_rng(0)).box
    )
    tight = (
        Asking(backbone, FitOptions(box_jitter_mm=0.0)).prompt(one, 1, "box", np.random.default_rng(0)).box
    )
    moved = np.abs(np.array(loose) - np.array(tight))
    assert 0 < moved.max() <= 2.0


def test_balanced_prompts_ask_for_what_was_asked_least(narrow) -> None:
    given = batch((24, 20, 2), 255.0, 2.0).take([0])
    backbone, rng = narrow("medsam"), np.random.default_rng(0)

    def drawn(balanced: bool) -> Counter[int]:
        asking = Asking(backbone, FitOptions(structures_per_step=1, balance_prompts=balanced))
        asking.placed["liver"] = 1000
        return Counter(value for _ in range(50) for value in asking.values(given, rng))

    assert drawn(True)[2] == 50
    assert drawn(False)[2] < 40
