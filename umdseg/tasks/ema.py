"""A running average of the trained tensors, validated and kept in their place."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from umdseg.tasks.state import copied, learned, put


class Ema(Callback):
    """Exponential moving average of what is trained; the frozen base has no copy.

    Running statistics of norm layers that train are averaged with the weights, as AveragedModel does with
    `use_buffers`; their counters are the latest.

    The decay rises from 0.1 to the given one over the first steps ((1 + n) / (10 + n), as TensorFlow's
    ExponentialMovingAverage), so that short fits are not averages of the start. While validating, and from
    the end of training on, the model holds the average.

    Args:
        decay: share of the average that a step keeps.
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._average: dict[str, torch.Tensor] = {}
        # what training goes on with, while the model holds the average
        self._raw: dict[str, torch.Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the tensors as they are, unless a resumed run brought an average."""
        now = learned(pl_module)
        self._average = self._average or copied(pl_module)
        self._average = {name: value.to(now[name].device) for name, value in self._average.items()}
        self.steps = self.steps or trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Go on with the tensors that are trained."""
        self._put_back(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Take one optimizer step into the average; batches that only add to gradients change nothing."""
        if trainer.global_step == self.steps:
            return
        self.steps = trainer.global_step
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        now = {name: value.detach() for name, value in learned(pl_module).items()}
        smooth = [name for name, value in now.items() if value.is_floating_point()]
        with torch.no_grad():
            update: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            update([self._average[name] for name in smooth], [now[name] for name in smooth], self.steps)
            for name in now.keys() - set(smooth):
                self._average[name].copy_(now[name])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average; it stays in until the next training batch."""
        self._put_in(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the average."""
        self._put_in(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the average of a resumed run that had no step left to train."""
        self._put_in(pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A run stopped while validating goes on with the tensors that are trained."""
        checkpoint["state_dict"].update(self._raw)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"steps": self.steps, "average": self._average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.steps, self._average = int(state_dict["steps"]), dict(state_dict["average"])

    def _put_in(self, pl_module: LightningModule) -> None:
        if self._average and not self._raw:
            self._raw = copied(pl_module)
            put(pl_module, self._average)

    def _put_back(self, pl_module: LightningModule) -> None:
        if self._raw:
            put(pl_module, self._raw)
            self._raw = {}
