"""Where a run computes: device and precision, and whether Lightning can build that at all."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from umdseg.config.schema import TrainerOptions
from umdseg.config.values import Problem
from umdseg.errors import nearest
from umdseg.inference.precision import has_bf16

_LOUD = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")


def device_of(accelerator: str) -> torch.device:
    """The device for work outside the Trainer."""
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("gpu", "mps", "auto") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def hardware(options: TrainerOptions) -> dict[str, Any]:
    """The arguments of `lightning.Trainer` that say where and how exactly it computes.

    Precision `auto` is bfloat16 where the device multiplies it natively, else float32.
    """
    precision: str = options.precision
    if precision == "auto":
        precision = "bf16-mixed" if has_bf16(device_of(options.accelerator)) else "32-true"
    return {
        "accelerator": options.accelerator,
        "devices": options.devices,
        "strategy": options.strategy,
        "num_nodes": options.num_nodes,
        "precision": precision,
    }


def hardware_problems(options: TrainerOptions) -> Iterator[Problem]:
    """What Lightning would refuse when the Trainer is built, found by building one that does nothing."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.strategies import StrategyRegistry

    known = ["auto", *StrategyRegistry.available_strategies()]
    if options.strategy not in known:
        shown = ", ".join(known)
        near = nearest(options.strategy, known)
        yield Problem("trainer.strategy", f"'{options.strategy}'", f"one of {shown}", near)
        return
    try:
        with _quiet():
            Trainer(
                **hardware(options),
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
    # Lightning has no common class for what it refuses: ValueError, RuntimeError, its own exceptions
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        yield Problem("trainer", said[0], "accelerator, devices, strategy and precision that fit together")


@contextmanager
def _quiet() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in _LOUD}
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
