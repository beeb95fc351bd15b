"""Running statistics of norm layers that train: kept, resumed, averaged and put back with the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from umdseg import load_backbone
from umdseg.adapters.full import FullTuning
from umdseg.backbones import Backbone
from umdseg.backbones.torch_module.backbone import TorchModule
from umdseg.tasks import FitOptions, SegmentTask
from umdseg.tasks.best import StopEarly
from umdseg.tasks.ema import Ema
from umdseg.tasks.state import statistics
from umdseg.vocabulary import Batch

ORGANS = ("liver", "spleen")
MOMENTUM = 0.1


def network() -> Backbone:
    """A user's network with batch norm, from the same random numbers every time."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 2, 1))
    like = load_backbone("unet", "random", width=4, levels=3, window=[16, 16, 16]).card
    card = replace(like, structures={"liver": 0, "spleen": 1}, output="sigmoid")
    return TorchModule(card, net).eval()


def batch() -> Batch:
    image = torch.rand(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1)) + 3
    label = (image > 3.5).to(torch.int16) + (image > 3.8).to(torch.int16)
    affine = torch.eye(4).expand(2, 4, 4).clone()
    return Batch(image, label, affine, ["ct", "pet"], ["a", "b"], ["", "FDG"], ORGANS)


def trained(folder: Path, steps: int, start: Path | None = None) -> dict[str, torch.Tensor]:
    backbone = network()
    adapter = FullTuning(FullTuning.Options(name="full"))
    adapter.inject(backbone)
    task = SegmentTask(backbone, adapter, FitOptions(steps=6, lr=0.05), ORGANS)
    keep = ModelCheckpoint(folder, "last", every_n_train_steps=1, enable_version_counter=False)
    trainer(steps, [keep]).fit(task, DataLoader([batch()], batch_size=None), ckpt_path=start)  # type: ignore[arg-type]
    return {name: value.clone() for name, value in backbone.net.state_dict().items()}


def trainer(steps: int, callbacks: list[Callback], every: int = 0) -> Trainer:
    return Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=callbacks,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        limit_val_batches=1 if every else 0, val_check_interval=every or None,
        check_val_every_n_epoch=None if every else 1,
    )  # fmt: skip


def test_a_resumed_network_with_batch_norm_is_the_one_that_was_not_stopped(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 6)
    trained(tmp_path / "parts", 3)
    parts = trained(tmp_path / "parts", 6, tmp_path / "parts" / "last.ckpt")
    assert whole["1.num_batches_tracked"] == 6
    assert not torch.allclose(whole["1.running_mean"], network().net.state_dict()["1.running_mean"], atol=0.1)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_what_moves_is_told_in_any_mode_and_no_mode_is_changed(narrow: Callable[[str], Backbone]) -> None:
    backbone = network()
    backbone.requires_grad_(False)
    assert statistics(backbone) == {}
    backbone.requires_grad_(True)
    backbone.net[0].train()  # type: ignore[index]
    modes = [part.training for part in backbone.modules()]
    names = {f"net.1.{key}" for key in ("running_mean", "running_var", "num_batches_tracked")}
    assert statistics(backbone).keys() == names
    assert [part.training for part in backbone.modules()] == modes
    # a wrapper that holds the statistics of its weights file
    published = narrow("ctfm_wholebody").requires_grad_(True)
    assert any(isinstance(part, nn.BatchNorm3d) for part in published.modules())
    assert statistics(published) == {}


class Normed(LightningModule):
    """Batch norm that sees the mean n in step n; its weight falls by 1 a step."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.norm, self.scores, self.seen = nn.BatchNorm1d(1, momentum=MOMENTUM), list(scores), []
        self.norm.bias.requires_grad_(False)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        self.norm(torch.tensor([[-1.0], [1.0]]) + self.global_step + 1)
        return self.norm.weight.sum()

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.seen.append(float(self.norm.running_mean))  # type: ignore[arg-type]

    def on_validation_epoch_end(self) -> None:
        self.log("val/dice", self.scores[len(self.seen) - 1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.norm.weight], lr=1.0)


def means(steps: int) -> list[float]:
    """Running mean after 0, 1, 2, ... steps, by its definition."""
    found = [0.0]
    for n in range(1, steps + 1):
        found.append((1 - MOMENTUM) * found[-1] + MOMENTUM * n)
    return found


def averages(values: list[float], decay: float) -> list[float]:
    """Their exponential moving average, with the decay's rise."""
    found = values[:1]
    for n, value in enumerate(values[1:], 1):
        d = min(decay, (1 + n) / (10 + n))
        found.append(d * found[-1] + (1 - d) * value)
    return found


@pytest.mark.parametrize("ema", [False, True])
def test_weights_that_are_put_back_bring_their_statistics(ema: bool) -> None:
    model = Normed([0.2, 0.5, 0.4, 0.3])
    callbacks: list[Callback] = [*([Ema(0.5)] if ema else []), StopEarly(2)]
    fitted = trainer(20, callbacks, every=2)
    loader: DataLoader[Any] = DataLoader(torch.zeros(3, 1))  # type: ignore[arg-type]
    fitted.fit(model, loader, loader)
    assert fitted.global_step == 8
    raw = means(8)
    expected = averages(raw, 0.5) if ema else raw
    # validated with what belongs to the weights, the average of both; training went on with its own
    assert model.seen == pytest.approx([expected[n] for n in (2, 4, 6, 8)], abs=1e-5)
    assert float(model.norm.running_mean) == pytest.approx(expected[4], abs=1e-5)  # type: ignore[arg-type]
    assert int(model.norm.num_batches_tracked) == 4  # type: ignore[arg-type]
    weights = averages([1.0 - n for n in range(9)], 0.5) if ema else [1.0 - n for n in range(9)]
    assert model.norm.weight.item() == pytest.approx(weights[4], abs=1e-5)
