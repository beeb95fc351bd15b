"""EMA against its recursion, early stop with the best tensors put back, the log of prompts, and resuming."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from umdseg.tasks.asking import Asked
from umdseg.tasks.best import StopEarly
from umdseg.tasks.ema import Ema
from umdseg.tasks.prompt_log import PromptLog
from umdseg.tasks.scores import PatchDice, target_score


class One(LightningModule):
    """A number that falls by 1 a step beside a frozen one; its validation score is given."""

    def __init__(self, scores: list[float] = ()) -> None:  # type: ignore[assignment]
        super().__init__()
        self.number, self.frozen = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.ones(1), False)
        self.scores, self.validated, self.prompted = list(scores), [], []

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        self.prompted = [Asked("a", "pet", "liver", "clicks", 3), Asked("a", "pet", "spleen", "auto", 0)]
        return self.number.sum()

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.validated.append(float(self.number.detach()))

    def on_validation_epoch_end(self) -> None:
        self.log("val/dice", self.scores[len(self.validated) - 1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.number], lr=1.0)


def fit(model: One, callbacks: list[Callback], steps: int, every: int = 0, **options) -> Trainer:
    trainer = Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=1 if every else 0,
        val_check_interval=every or None, check_val_every_n_epoch=None if every else 1,
        callbacks=callbacks, enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **{k: v for k, v in options.items() if k != "ckpt_path"},
    )  # fmt: skip
    loader = DataLoader(torch.zeros(3, 1))
    trainer.fit(model, loader, loader, ckpt_path=options.get("ckpt_path"))
    return trainer


def averages(decay: float, steps: int) -> list[float]:
    """After 0, 1, 2, ... steps, by the recursion; the number itself is -n after n steps."""
    found = [0.0]
    for n in range(1, steps + 1):
        d = min(decay, (1 + n) / (10 + n))
        found.append(d * found[-1] - (1 - d) * n)
    return found


def test_ema_is_its_recursion_and_is_what_is_kept() -> None:
    model, ema = One(), Ema(0.5)
    fit(model, [ema], 12)
    assert model.number.item() == pytest.approx(averages(0.5, 12)[-1], abs=1e-5)
    assert set(ema.state_dict()["average"]) == {"number"}


def test_the_average_is_validated_but_not_trained_on() -> None:
    model = One([0.1] * 9)
    fit(model, [Ema(0.5)], 6, every=2)
    wanted = averages(0.5, 6)
    assert model.validated == pytest.approx([wanted[2], wanted[4], wanted[6]], abs=1e-5)
    assert model.number.item() == pytest.approx(wanted[6], abs=1e-5)


def test_batches_that_only_add_to_gradients_do_not_count() -> None:
    model = One()
    fit(model, [Ema(0.9)], 4, accumulate_grad_batches=3)
    assert model.number.item() == pytest.approx(averages(0.9, 4)[-1], abs=1e-5)


@pytest.mark.parametrize("ema", [False, True])
def test_training_stops_and_the_best_tensors_come_back(ema: bool, capsys: pytest.CaptureFixture[str]) -> None:
    model = One([0.2, 0.5, 0.4, 0.3, 0.9])
    trainer = fit(model, [*([Ema(0.5)] if ema else []), StopEarly(2)], 20, every=2)
    assert trainer.global_step == 8
    assert model.number.item() == pytest.approx(averages(0.5, 4)[-1] if ema else -4.0, abs=1e-5)
    assert "step 4 (val/dice 0.500)" in capsys.readouterr().err


def test_a_resumed_run_ends_as_one_that_was_not_stopped(tmp_path: Path) -> None:
    scores = [0.2, 0.5, 0.4, 0.45, 0.1, 0.0, 0.0, 0.0]

    def parts() -> list[Callback]:
        keep = ModelCheckpoint(tmp_path, "last", every_n_train_steps=1, enable_version_counter=False,
                               save_on_train_epoch_end=False)  # fmt: skip
        return [Ema(0.5), StopEarly(3), PromptLog(tmp_path / "logs"), keep]

    whole = One(scores)
    fit(whole, [Ema(0.5), StopEarly(3)], 20, every=2)
    first = One(scores)
    fit(first, parts(), 5, every=2)
    second = One(scores)
    second.validated = [0.0, 0.0]
    trainer = fit(second, parts(), 20, every=2, ckpt_path=tmp_path / "last.ckpt")
    assert trainer.global_step == 10
    assert second.number.item() == pytest.approx(whole.number.item(), abs=1e-5)
    with open(tmp_path / "logs" / "prompts.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == [n for n in range(10) for _ in range(2)]
    assert rows[0] == {"step": "0", "subject": "a", "modality": "pet", "subset": "", "structure": "liver",
                       "kind": "clicks", "clicks": "3"}  # fmt: skip


def test_rows_of_steps_that_are_repeated_are_dropped(tmp_path: Path) -> None:
    log = PromptLog(tmp_path)
    (tmp_path / "prompts.csv").write_text("step,subject,modality,subset,structure,kind,clicks\n"
                                          "0,a,ct,,liver,auto,0\n1,a,ct,,liver,auto,0\n2,a,ct")  # fmt: skip
    log.on_train_start(SimpleNamespace(global_rank=0, global_step=1), One())  # type: ignore[arg-type]
    assert (tmp_path / "prompts.csv").read_text().split() == [
        "step,subject,modality,subset,structure,kind,clicks", "0,a,ct,,liver,auto,0",
    ]  # fmt: skip


def test_patch_dice_is_pooled_by_scan_then_averaged() -> None:
    dice = PatchDice()
    ones, none = torch.ones(1, 2, 2, 2, dtype=torch.bool), torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    half = ones.clone()
    half[..., 0] = False
    dice.add(("a", "pet"), ["liver"], ones, half)  # 4 of 8 and 4
    dice.add(("a", "pet"), ["liver"], none, half)  # pooled: 2 * 4 / (8 + 8)
    dice.add(("b", "pet"), ["liver", "spleen"], torch.cat([ones, none]), torch.cat([ones, half]))
    dice.add(("b", "ct"), ["liver"], ones, none)  # a structure that is not there is no score
    dice.add(("a", "mr"), ["liver"], half, half)
    found = dice.by_modality()
    assert found == pytest.approx({"pet": (0.5 + (1 + 0) / 2) / 2, "mr": 1.0})
    assert target_score(found, ["pet", "ct"]) == pytest.approx(0.5)
    assert target_score(found, ["ct"]) == pytest.approx(0.75)
    assert target_score({}, ["ct"]) is None
