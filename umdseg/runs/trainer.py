"""Lightning's Trainer, built from the configuration."""

from __future__ import annotations

import json
import logging
import os
import sys
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger

from umdseg.config.check import flatten
from umdseg.config.hardware import hardware
from umdseg.config.schema import Settings
from umdseg.errors import UserError
from umdseg.files import write_json
from umdseg.runs.progress import ProgressLines


def build_trainer(settings: Settings, folder: Path, callbacks: Sequence[Callback] = ()) -> Trainer:
    """The Trainer of a run, writing into its folder only.

    Args:
        settings: checked configuration.
        folder: run folder.
        callbacks: beside checkpoints and progress.

    Raises:
        UserError: Lightning refuses the trainer section on this machine.
    """
    options = settings.trainer
    terminal = sys.stderr.isatty()
    arguments: dict[str, Any] = dict(
        **hardware(options),
        max_steps=settings.fit.steps,
        max_epochs=-1,
        accumulate_grad_batches=options.accumulate_grad_batches,
        gradient_clip_val=settings.fit.grad_clip or None,
        log_every_n_steps=options.log_every_n_steps,
        deterministic=options.deterministic,
        callbacks=[*callbacks, *_own_callbacks(settings, folder, terminal)],
        logger=loggers(settings, folder),
        enable_checkpointing=settings.callbacks.checkpoint_every > 0,
        enable_progress_bar=terminal and settings.callbacks.progress_every > 0,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        # counted in batches, through the epochs
        limit_val_batches=1.0 if settings.fit.validate_every else 0,
        val_check_interval=settings.fit.validate_every * options.accumulate_grad_batches or None,
        check_val_every_n_epoch=None if settings.fit.validate_every else 1,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    try:
        return Trainer(**arguments)
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise UserError(str(error), where="trainer") from error


def fit_callbacks(settings: Settings, folder: Path) -> list[Callback]:
    """What fitting itself needs, in this order: average, early stop, log of prompts.

    They stand before the evaluation: it scores what they keep.
    """
    from umdseg.tasks.best import StopEarly
    from umdseg.tasks.ema import Ema
    from umdseg.tasks.prompt_log import PromptLog

    options = settings.fit
    found: list[Callback] = [] if options.ema is None else [Ema(options.ema)]
    if options.early_stop is not None:
        found.append(StopEarly(options.early_stop))
    return [*found, PromptLog(folder / "logs")]


def loggers(settings: Settings, folder: Path) -> list[Logger]:
    """CSV in `logs/`, and W&B beside it when it is switched on.

    Raises:
        UserError: W&B is asked for but not installed.
    """
    _keep_earlier(folder / "logs" / "metrics.csv")
    found: list[Logger] = [CSVLogger(folder, name="logs", version="", flush_logs_every_n_steps=1)]
    options = settings.logger.wandb
    if options.enabled:
        try:
            from lightning.pytorch.loggers import WandbLogger

            found.append(
                WandbLogger(
                    name=folder.name,
                    id=wandb_id(folder),
                    resume="allow",
                    save_dir=folder,
                    project=options.project,
                    mode=options.mode,
                    entity=options.entity,
                    group=options.group,
                    tags=list(settings.run.tags),
                )
            )
        except ModuleNotFoundError as error:
            raise UserError(
                "logger=wandb needs wandb", where="logger", expected="pip install wandb"
            ) from error
    plain = {key: value for key, value in flatten(settings).items() if value is not None}
    for logger in found:
        logger.log_hyperparams(plain)
    return found


def _keep_earlier(metrics: Path) -> None:
    """Rename the numbers of the part of a run before it was stopped; Lightning would delete them."""
    if metrics.is_file():
        number = len(list(metrics.parent.glob("metrics.*.csv"))) + 1
        metrics.rename(metrics.with_name(f"metrics.{number}.csv"))


def wandb_id(folder: Path) -> str:
    """The W&B run id of a folder, made once, so that a resumed run stays one run there."""
    path = folder / "logs" / "wandb.json"
    if path.is_file():
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    made = uuid.uuid4().hex[:12]
    write_json(path, {"id": made})
    return made


def silence() -> None:
    """Keep messages off the screen that a user cannot act on."""
    for name in (
        "lightning",
        "lightning.pytorch",
        "lightning.fabric",
        "pytorch_lightning",
        "hydra",
        "torch.distributed",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in (
        "rank_zero",
        "lightning.pytorch.utilities.rank_zero",
        "lightning.fabric.utilities.rank_zero",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
        warnings.simplefilter("ignore", category)
    for message in (
        ".*num_workers.*",
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*barrier\\(\\).*",
        ".*Checkpoint directory.*",
        ".*Experiment logs directory.*",
        ".*find_unused_parameters.*",
        ".*`training_step` returned.*",
        ".*lr_scheduler.step.*",
        ".*TypedStorage.*",
        ".*no `val_dataloader`.*",
        ".*Trying to infer the `batch_size`.*",
        ".*srun.*",
        ".*in eval mode at the start.*",
        ".*smaller than the logging interval.*",
        ".*resuming from a checkpoint that ended before.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    os.environ.setdefault("WANDB_SILENT", "true")


def _own_callbacks(settings: Settings, folder: Path, terminal: bool) -> list[Callback]:
    found: list[Callback] = []
    options = settings.callbacks
    if options.checkpoint_every:
        # one file that is replaced: a killed run goes on from it
        found.append(
            ModelCheckpoint(
                dirpath=folder / "checkpoints",
                filename="last",
                every_n_train_steps=options.checkpoint_every,
                save_top_k=1,
                save_last=False,
                enable_version_counter=False,
                save_on_train_epoch_end=False,
            )
        )
    if options.progress_every:
        found.append(TQDMProgressBar() if terminal else ProgressLines(options.progress_every))
    return found
