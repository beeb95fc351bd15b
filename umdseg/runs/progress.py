"""Progress of fitting as plain lines, for logs and batch jobs."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class ProgressLines(Callback):
    """Print step, loss, rate and time left to standard error, at most one line in `every` seconds.

    Args:
        every: seconds between lines.
    """

    def __init__(self, every: float) -> None:
        self.every = every
        self._start = self._last = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; a resumed run counts its own steps only."""
        self._start = self._last = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line when one is due."""
        now = time.monotonic()
        step, last = trainer.global_step, trainer.global_step >= trainer.max_steps
        if not trainer.is_global_zero or (now - self._last < self.every and not last):
            return
        self._last = now
        print(
            progress_line(
                step, trainer.max_steps, step - self._first_step, now - self._start, _loss(outputs)
            ),
            file=sys.stderr,
            flush=True,
        )


def progress_line(step: int, steps: int, done: int, seconds: float, loss: float | None) -> str:
    """One line: `fit 120/300, loss 0.412, 2.1 steps/s, 1:26 left`.

    Args:
        step: optimizer steps so far.
        steps: optimizer steps in all.
        done: steps made in `seconds`.
        seconds: time since this process began to fit.
        loss: last loss, if known.
    """
    rate = done / seconds if seconds > 0 and done > 0 else 0.0
    speed = f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step" if rate else "-"
    left = round((steps - step) / rate) if rate else 0
    shown = "" if loss is None else f", loss {loss:.4f}"
    return f"fit {step}/{steps}{shown}, {speed}, {left // 60}:{left % 60:02d} left"


def _loss(outputs: Any) -> float | None:
    value = outputs.get("loss") if isinstance(outputs, dict) else outputs
    return None if value is None else float(value)
