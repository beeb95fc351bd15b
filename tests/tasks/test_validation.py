"""Validation: what `val/dice` is of a fusion, samples nobody can answer, the same prompts every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from umdseg import load_backbone
from umdseg.adapters.full import FullTuning
from umdseg.adapters.lora import Lora, LoraOptions
from umdseg.adapters.none import NoAdapter
from umdseg.backbones.base import Backbone
from umdseg.data.paired import PairedBatch
from umdseg.errors import UserError
from umdseg.fusion import Fused, build
from umdseg.fusion.late import LateOptions
from umdseg.tasks import FitOptions, SegmentTask
from umdseg.vocabulary import Batch, Prompt

LIVER = ("liver",)


def label(window: tuple[int, int, int] = (16, 16, 16), count: int = 1) -> torch.Tensor:
    """The first structure in one half, further ones behind each other in the other."""
    found = torch.zeros(2, 1, *window, dtype=torch.int16)
    x, y, _ = window
    found[:, :, 1 : x // 2] = 1
    for value in range(2, count + 1):
        found[:, :, x // 2 + 1 :, (value - 2) * y // count + 1 : (value - 1) * y // count] = value
    return found


def affine(spacing: float = 6.0) -> torch.Tensor:
    return torch.diag(torch.tensor([spacing, spacing, spacing, 1.0])).expand(2, 4, 4).clone()


def pair(has_ct: bool) -> PairedBatch:
    image: dict[Any, torch.Tensor] = {m: torch.zeros(2, 1, 16, 16, 16) for m in ("ct", "pet")}
    present = torch.tensor([[has_ct, True]] * 2)
    annotated = torch.ones(2, 1, dtype=torch.bool)
    tracers: dict[Any, list[str]] = {m: ["", ""] for m in image}
    return PairedBatch(
        image, present, label(), affine(), ["a", "b"], tracers, LIVER, ["liver"] * 2, annotated
    )


def logged(task: SegmentTask, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    found: dict[str, float] = {}
    monkeypatch.setattr(task, "log_dict", found.update)
    task.on_validation_epoch_end()
    return found


def test_of_a_fusion_it_is_the_dice_with_all_modalities_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = load_backbone("vista3d_tiny", "random")
    NoAdapter(NoAdapter.Options(name="none")).inject(backbone)
    fused = build(LateOptions(), backbone, ["ct", "pet"], "ct", LIVER)
    assert isinstance(fused, Fused)

    def perfect_together(features: Any, prompts: Sequence[Prompt]) -> torch.Tensor:
        """The label itself where both are given; half of it on CT alone, nothing on PET alone."""
        held = label() == 1
        if len(features.found) < 2:
            held[:, :, :, (8 if 0 in features.found else 0) :] = False
        return held.float() * 20 - 10

    monkeypatch.setattr(fused, "decode", perfect_together)
    # trained for PET, as runs tell the task
    task = SegmentTask(fused, None, FitOptions(), LIVER, targets=("pet",))
    task.validation_step(pair(has_ct=True), 0)
    scores = {"val/dice/ct+pet": 1.0, "val/dice/ct": 2 / 3, "val/dice/pet": 0.0}
    assert logged(task, monkeypatch) == pytest.approx({**scores, "val/dice": 1.0})
    assert capsys.readouterr().err == ""

    for _ in range(2):
        task.validation_step(pair(has_ct=False), 0)
        assert logged(task, monkeypatch) == {"val/dice/pet": 0.0, "val/dice": 0.0}
    assert capsys.readouterr().err.splitlines() == [
        "nobody to validate on has ct+pet: val/dice is the mean of its parts"
    ]


def single(modality: str) -> Batch:
    image = torch.rand(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    return Batch(image, label(), affine(), [modality] * 2, ["a", "b"], [], ("tumour",))


def test_samples_without_an_adapter_that_knows_the_structure_are_left_out_of_validation_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = load_backbone("vista3d_tiny", "random")
    adapter = Lora(LoraOptions(rank=2, per="modality"))
    adapter.inject(backbone, backbone.add_structures(["tumour"]), ["pet"])
    task = SegmentTask(backbone, adapter, FitOptions(point_share=0.0), ("tumour",), targets=("pet",))
    for modality in ("ct", "pet", "ct"):
        task.validation_step(single(modality), 0)
    assert capsys.readouterr().err.splitlines() == [
        "ct is not validated: without an adapter of its own, the model knows none of tumour"
    ]
    assert logged(task, monkeypatch).keys() == {"val/dice", "val/dice/pet"}
    with pytest.raises(UserError, match="trains nothing"):
        task._step(single("ct"), 0)
    # nobody left to score
    task.validation_step(single("ct"), 0)
    with pytest.raises(UserError, match="hold none of the structures"):
        task.on_validation_epoch_end()


def test_validation_asks_the_same_every_time_and_leaves_the_balance_alone(
    narrow: Callable[[str], Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = narrow("medsam")
    adapter = FullTuning(FullTuning.Options(name="full"))
    adapter.inject(backbone)
    names = ("liver", "spleen", "kidney_left", "kidney_right")
    window = (24, 24, 2)
    image = torch.rand(2, 1, *window, generator=torch.Generator().manual_seed(0)) * 255
    given = Batch(image, label(window, 4), affine(2.0), ["ct"] * 2, ["a", "b"], [], names)
    options = FitOptions(structures_per_step=2, balance_prompts=True)
    task = SegmentTask(backbone, adapter, options, names)
    asked: list[Prompt] = []
    decode = backbone.decode

    def spy(features: Any, prompts: Sequence[Prompt]) -> torch.Tensor:
        asked.extend(prompts)
        return decode(features, prompts)

    monkeypatch.setattr(backbone, "decode", spy)

    def validated() -> list[Prompt]:
        asked.clear()
        with torch.no_grad():
            task.validation_step(given, 3)
        return list(asked)

    first = validated()
    assert len(first) == 4
    assert task.asking.placed.total() == 0
    for steps, name in enumerate(names, 1):
        # what training has asked for meanwhile, each time another structure the most
        task.asking.placed.update({name: 1000 * steps})
        before, prompted = dict(task.asking.placed), list(task.prompted)
        again = validated()
        assert [p.structure for p in again] == [p.structure for p in first]
        assert np.allclose([p.box for p in again], [p.box for p in first])
        assert (dict(task.asking.placed), task.prompted) == (before, prompted)
    # training does count
    task._step(given, 0)
    assert task.asking.placed.total() == sum(before.values()) + 4
