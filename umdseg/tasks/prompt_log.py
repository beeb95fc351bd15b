"""logs/prompts.csv: what every training step asked for."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from umdseg.files import atomic

COLUMNS = ("step", "subject", "modality", "subset", "structure", "kind", "clicks")


class PromptLog(Callback):
    """One row per prompt: optimizer step, subject, modality, subset, structure, kind, number of clicks.

    Of scans given together `subset` says which of them the sample had and was not dropped, as in cases.csv.
    The first process writes `prompts.csv`, the others `prompts.<rank>.csv`. A run that goes on from a
    checkpoint drops the rows of the steps it repeats.

    Args:
        folder: where the file goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the rows of steps that are not repeated."""
        path = self._path(trainer)
        kept: list[list[str]] = []
        if path.is_file():
            with open(path, newline="", encoding="utf-8") as stream:
                rows = list(csv.reader(stream))[1:]
            kept = [row for row in rows if len(row) == len(COLUMNS) and int(row[0]) < trainer.global_step]
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([list(COLUMNS), *kept])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Note the step that the batch belongs to; it is another one once the optimizer has stepped."""
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Append what the step asked for."""
        asked: Any = getattr(pl_module, "prompted", [])
        rows = [(self._step, p.subject, p.modality, p.subset, p.structure, p.kind, p.clicks) for p in asked]
        with open(self._path(trainer), "a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)

    def _path(self, trainer: Trainer) -> Path:
        rank = trainer.global_rank
        return self.folder / ("prompts.csv" if rank == 0 else f"prompts.{rank}.csv")
