"""The typed form of the composed configuration.

Sections of components (model, adapter, fusion, data) take the `Options` dataclass that lives beside the
component; everything a run itself needs is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from umdseg.adapters.base import AdapterOptions
from umdseg.backbones.options import ModelOptions
from umdseg.data.options import DataOptions
from umdseg.evaluation.options import EvaluationOptions
from umdseg.registry import resolve
from umdseg.tasks.options import FitOptions

Task = Literal["train", "pretrain", "evaluate"]


@dataclass
class PromptSection:
    """How the model is asked.

    Attributes:
        kinds: prompt kinds; each gets its own rows in the case table.
    """

    kinds: list[str] = field(default_factory=lambda: ["auto", "point"])


@dataclass
class TrainerOptions:
    """What `lightning.Trainer` is built from.

    Attributes:
        accelerator: cpu, gpu, cuda, mps or auto.
        devices: how many, or auto.
        strategy: Lightning's strategy name.
        precision: Lightning's precision; auto is bf16-mixed where the device multiplies it natively,
            else 32-true.
        num_nodes: machines.
        accumulate_grad_batches: batches per optimizer step.
        log_every_n_steps: steps between logged losses.
        deterministic: ask PyTorch for deterministic kernels (slower).
        channels_last: keep convolution weights in channels-last order while fitting; on CPUs in float32 a
            step of full tuning then takes about a quarter less time. Results differ by rounding.
    """

    accelerator: Literal["cpu", "gpu", "cuda", "mps", "auto"] = "cpu"
    devices: int | str = 1
    strategy: str = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"] = (
        "auto"
    )
    num_nodes: int = 1
    accumulate_grad_batches: int = 1
    log_every_n_steps: int = 10
    deterministic: bool = False
    channels_last: bool = False


@dataclass
class WandbOptions:
    """Weights & Biases, beside the CSV logger that is always on.

    Attributes:
        enabled: log there too.
        mode: offline until asked otherwise.
        project: W&B project.
        entity: W&B team or user; None = the account's default.
        group: W&B group.
    """

    enabled: bool = False
    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "umdseg"
    entity: str | None = None
    group: str | None = None


@dataclass
class LoggerOptions:
    """Where numbers go beside the CSV file."""

    wandb: WandbOptions = field(default_factory=WandbOptions)


@dataclass
class CallbackOptions:
    """What happens around fitting.

    Attributes:
        checkpoint_every: steps between checkpoints (what a killed run resumes from); 0 = none.
        progress_every: seconds between progress lines when standard error is no terminal; 0 = none.
        evaluate_before: score the model before fitting (zero-shot).
    """

    checkpoint_every: int = 100
    progress_every: float = 10.0
    evaluate_before: bool = True


@dataclass
class RunOptions:
    """The top level of the configuration.

    Attributes:
        task: train, pretrain (random weights, all parameters, exported afterwards) or evaluate.
        seed: one seed for everything.
        name: run name; None = `<data>-<model>-<adapter>`.
        tags: free labels, for loggers.
        runs_dir: folder of all runs.
        resume: auto continues an unfinished run and keeps a finished one; never sets either aside.
        ckpt_path: start fitting from this checkpoint.
        save_predictions: keep every prediction as NIfTI.
        limit_subjects: score only the first n subjects.
        overfit: train.py scores the training subjects instead of the test subjects.
    """

    task: Task = "train"
    seed: int = 0
    name: str | None = None
    tags: list[str] = field(default_factory=list)
    runs_dir: str = "runs"
    resume: Literal["auto", "never"] = "auto"
    ckpt_path: str | None = None
    save_predictions: bool = False
    limit_subjects: int | None = None
    overfit: bool = False


@dataclass(frozen=True)
class Settings:
    """A checked configuration.

    Attributes:
        run: top level.
        model, adapter, fusion, data: options of the chosen components.
        prompt, fit, evaluation, trainer, logger, callbacks: sections every run has.
        explicit: config paths given on the command line.
        overrides: the command line itself, without flags.
        search: further folders of YAML files (`--config-dir`).
        notices: what was left out of the configuration, for standard error.
    """

    run: RunOptions
    model: ModelOptions
    adapter: AdapterOptions
    fusion: Any
    data: DataOptions
    prompt: PromptSection
    fit: FitOptions
    evaluation: EvaluationOptions
    trainer: TrainerOptions
    logger: LoggerOptions
    callbacks: CallbackOptions
    explicit: frozenset[str] = frozenset()
    overrides: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The run's name, given or made from what it is."""
        return self.run.name or f"{self.data.name}-{self.model.name}-{self.adapter.name}"

    @property
    def fold(self) -> int | None:
        """The fold tested, where the dataset is dealt into folds."""
        dealt = self.data.folds is not None or self.data.published_folds
        return self.data.fold if dealt else None

    @property
    def runs_dir(self) -> Path:
        """The folder of all runs, absolute."""
        return Path(self.run.runs_dir).expanduser().resolve()


FIXED: dict[str, type] = {
    "prompt": PromptSection,
    "fit": FitOptions,
    "evaluation": EvaluationOptions,
    "trainer": TrainerOptions,
    "logger": LoggerOptions,
    "callbacks": CallbackOptions,
}
COMPONENTS: tuple[str, ...] = ("model", "adapter", "fusion", "data")


def options_of(kind: str, name: str) -> type:
    """The options dataclass of a registered component.

    Raises:
        UserError: no component of that name (with the nearest one).
    """
    factory = resolve(kind, name)
    # most models need no options of their own
    return getattr(factory, "Options", ModelOptions)
