"""Keeps what was trained as soon as training ends: scoring takes long, and may fail."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer

from umdseg.tasks.layout import channels_first, channels_last


class KeepTrained(Callback):
    """Calls `save` at the end of training, in the first process.

    It stands behind what decides which tensors are kept (average, early stop) and before the evaluation.

    Args:
        save: writes adapter and fusion, whole or not at all.
        channels_last: whether convolutions are kept in that order; files hold contiguous tensors only.
    """

    def __init__(self, save: Callable[[], None], channels_last: bool = False) -> None:
        self.save, self.channels_last, self.done = save, channels_last, False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and leave the order of tensors as it was."""
        self.done = True
        if not trainer.is_global_zero:
            return
        channels_first(pl_module)
        self.save()
        if self.channels_last:
            channels_last(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save in a resumed run that had no step left to train."""
        if not self.done:
            self.on_train_end(trainer, pl_module)
