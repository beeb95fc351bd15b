"""Stop when the validation score no longer rises, and keep the tensors that had the best one."""

from __future__ import annotations

import sys
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from umdseg.tasks.state import copied, put

MONITOR = "val/dice"


class StopEarly(EarlyStopping):
    """Lightning's early stopping, with the best trained tensors (and norm statistics) put back.

    Stands behind `Ema` in the list of callbacks: what was validated is what is kept.

    Args:
        patience: scores in a row without a better one before training stops.
    """

    def __init__(self, patience: int) -> None:
        super().__init__(MONITOR, mode="max", patience=patience, check_on_train_epoch_end=False)
        self._best: dict[str, torch.Tensor] = {}
        self._best_step = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the score; keep a copy of the tensors where it is the best so far."""
        before = self.best_score.clone()
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking and bool(self.best_score > before):
            self._best = copied(pl_module)
            self._best_step = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the best tensors back."""
        self._restore(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put them back in a resumed run that had no step left to train."""
        self._restore(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {**super().state_dict(), "best": self._best, "best_step": self._best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        super().load_state_dict(state_dict)
        self._best, self._best_step = dict(state_dict["best"]), int(state_dict["best_step"])

    def _restore(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._best:
            return
        put(pl_module, self._best)
        self._best = {}
        if trainer.is_global_zero:
            score = f"{MONITOR} {float(self.best_score):.3f}"
            print(f"kept: the adapter of step {self._best_step} ({score})", file=sys.stderr, flush=True)
