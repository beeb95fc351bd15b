"""What values mean beyond their type: ranges, choices, and settings that exclude each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from umdseg.errors import UserError, nearest
from umdseg.evaluation.options import BASELINES, LABELS
from umdseg.metrics import METRICS
from umdseg.registry import names, resolve
from umdseg.vocabulary import MODALITIES, Split


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration.

    Attributes:
        path: config path ("adapter.rank"), or the group ("model").
        given: what stands there.
        expected: what could stand there.
        nearest: the nearest valid spelling, if one is near.
    """

    path: str
    given: str
    expected: str
    nearest: str | None = None

    def shown(self) -> str:
        """As the error screen has it."""
        line = f"\n  {self.path}: {self.given}\n    expected: {self.expected}"
        return line + (f"\n    did you mean: {self.nearest}" if self.nearest else "")


@dataclass(frozen=True)
class Range:
    """A number between two bounds."""

    low: float
    high: float = float("inf")
    open_low: bool = False
    open_high: bool = False

    def __call__(self, path: str, value: Any) -> Iterator[Problem]:
        """The problem of a value outside, if it is."""
        bound = (self.open_low and value == self.low) or (self.open_high and value == self.high)
        # no comparison holds for nan, which is inside no range
        if bound or not self.low <= value <= self.high:
            yield Problem(path, repr(value), str(self))

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
        high = f"below {self.high:g}" if self.open_high else f"at most {self.high:g}"
        return low if self.high == float("inf") else f"{low}, {high}"


@dataclass(frozen=True)
class OneOf:
    """A name, a list of names, or a table keyed by names, all from one set."""

    choices: tuple[str, ...]
    empty: bool = True

    def __call__(self, path: str, value: Any) -> Iterator[Problem]:
        """One problem for each name that is none of the choices, and one for names that stand twice."""
        given = [value] if isinstance(value, str) else list(value)
        shown = ", ".join(self.choices)
        if not given and not self.empty:
            yield Problem(path, "nothing", f"at least one of {shown}")
        for name in given:
            if name not in self.choices:
                yield Problem(path, f"'{name}'", f"one of {shown}", nearest(name, self.choices))
        twice = [str(name) for i, name in enumerate(given) if name in given[:i]]
        if twice:
            named = " and ".join(f"'{name}'" for name in dict.fromkeys(twice))
            yield Problem(path, f"{named} named twice", "every name once")


@dataclass(frozen=True)
class FileName:
    """A text that names one file or folder, wherever it lies."""

    def __call__(self, path: str, value: str) -> Iterator[Problem]:
        """The problem of a name that would leave its folder."""
        if not value or ".." in value or not value.isprintable() or set(value) & set("/\\"):
            yield Problem(path, repr(value), "a name without /, \\ and ..")


@dataclass(frozen=True)
class Pattern:
    """A regular expression."""

    def __call__(self, path: str, value: str) -> Iterator[Problem]:
        """The problem of a text that is none."""
        try:
            re.compile(value)
        except re.error as error:
            yield Problem(path, repr(value), f"a regular expression ({error})")


POSITIVE = Range(0, open_low=True)
RULES: Mapping[str, Range | OneOf | FileName | Pattern] = {
    "seed": Range(0, 2**32 - 1),
    "name": FileName(),
    "adapter.targets": Pattern(),
    "limit_subjects": Range(1),
    "adapter.rank": Range(1),
    "adapter.alpha": POSITIVE,
    "adapter.dropout": Range(0, 1, open_high=True),
    "adapter.reduction": Range(1),
    "adapter.width": Range(1),
    "adapter.slices": Range(1),
    "adapter.margin": Range(0),
    "data.split": OneOf(get_args(Split)),
    "data.modalities": OneOf(MODALITIES, empty=False),
    "data.train_modalities": OneOf(MODALITIES, empty=False),
    "data.batch_size": Range(1),
    "data.foreground": Range(0, 1),
    "data.patches_per_epoch": Range(1),
    "data.workers": Range(0),
    "data.cache_gb": Range(0),
    "data.shots": Range(1),
    "fit.steps": Range(0),
    "fit.lr": POSITIVE,
    "fit.weight_decay": Range(0),
    "fit.warmup": Range(0, 1),
    "fit.grad_clip": Range(0),
    "fit.ce_weight": Range(0),
    "fit.focal_gamma": Range(0),
    "fit.tversky_beta": Range(0, 1),
    "fit.point_share": Range(0, 1),
    "fit.box_share": Range(0, 1),
    "fit.box_margin_mm": Range(0),
    "fit.box_jitter_mm": Range(0),
    "fit.ema": Range(0, 1),
    "fit.validate_every": Range(0),
    "fit.validation_patches": Range(1),
    "fit.early_stop": Range(1),
    "fit.structures_per_step": Range(1),
    "fit.positive_clicks": Range(1),
    "fit.negative_clicks": Range(0),
    "evaluation.metrics": OneOf(tuple(METRICS), empty=False),
    "evaluation.baselines": OneOf(BASELINES),
    "evaluation.tolerance_mm": POSITIVE,
    "evaluation.box_margin_mm": Range(0),
    "evaluation.box_jitter_mm": Range(0),
    "evaluation.bootstrap": Range(100),
    "evaluation.overlap": Range(0, 0.9),
    "evaluation.label": OneOf(LABELS),
    "evaluation.precision": OneOf(("auto", "fp32", "bf16")),
    "evaluation.overlay_subjects": Range(0),
    "trainer.num_nodes": Range(1),
    "trainer.accumulate_grad_batches": Range(1),
    "trainer.log_every_n_steps": Range(1),
    "callbacks.checkpoint_every": Range(0),
    "callbacks.progress_every": Range(0),
}


def check_values(flat: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems of typed values, given as config path -> value."""
    rules = {**RULES, "prompt.kinds": OneOf(tuple(names("prompt")), empty=False)}
    for path, rule in rules.items():
        if flat.get(path) is not None:
            yield from rule(path, flat[path])
    for modality, weight in (flat.get("data.train_modalities") or {}).items():
        yield from Range(0)(f"data.train_modalities.{modality}", weight)


def check_together(flat: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems of values that only matter beside others, or on this machine."""
    devices = str(flat["trainer.devices"])
    if devices not in ("auto", "-1") and not (devices.isdigit() and int(devices) > 0):
        yield Problem("trainer.devices", repr(devices), "a positive number, -1 (all) or auto")
    accelerator = flat["trainer.accelerator"]
    if accelerator in ("gpu", "cuda", "mps") and not _has_gpu():
        expected = "cpu, since PyTorch sees no GPU here (trainer=cpu, or trainer.accelerator=cpu)"
        yield Problem("trainer.accelerator", f"'{accelerator}'", expected)
    if flat.get("evaluation.save_predictions"):
        yield Problem("evaluation.save_predictions", "true", "save_predictions=true, at the top level")
    if flat["task"] == "pretrain":
        yield from _pretraining(flat)
    if flat["task"] == "evaluate":
        if flat["adapter.name"] != "none" and not flat.get("adapter.path"):
            expected = "adapter.path=RUN/adapter, or adapter=none for the model as it is"
            yield Problem("adapter", f"'{flat['adapter.name']}' without a saved adapter", expected)
        if flat["fusion.name"] != "none" and not flat.get("fusion.path"):
            expected = "fusion.path=RUN/fusion, or fusion=none for one scan at a time"
            yield Problem("fusion", f"'{flat['fusion.name']}' without a saved fusion", expected)
        return
    if flat["fusion.name"] != "none":
        yield from _fusing(flat)
    if flat.get("data.paired") and flat["fusion.name"] == "none":
        expected = "false, or a fusion, which takes all modalities of a subject at once"
        yield Problem("data.paired", "true with fusion 'none'", expected)
    yield from _exporting(flat)
    if flat["data.split"] != "test":
        expected = "test, which train.py scores; evaluate.py takes data.split"
        yield Problem("data.split", repr(flat["data.split"]), expected)
    if flat.get("adapter.per") and flat.get("fit.export_weights"):
        expected = "null: one network cannot hold the adapters of several modalities"
        yield Problem("fit.export_weights", repr(flat["fit.export_weights"]), expected)
    if flat.get("adapter.path"):
        expected = "evaluate.py adapter.path=... scores a saved adapter; train.py makes a new one"
        yield Problem("adapter.path", repr(flat["adapter.path"]), expected)


def _exporting(flat: Mapping[str, Any]) -> Iterator[Problem]:
    """What weights are changed or written by."""
    if flat.get("fit.copy_parts") and flat["task"] != "pretrain":
        expected = "{}, or task=pretrain: an adapter belongs to the weights as they were published"
        yield Problem("fit.copy_parts", str(flat["fit.copy_parts"]), expected)
    path = flat.get("fit.export_weights")
    if not path:
        return
    if not flat["fit.steps"]:
        yield Problem(
            "fit.export_weights", f"{path!r} with fit.steps=0", "steps that train something to export"
        )
    try:
        why = getattr(resolve("adapter", flat["adapter.name"]), "why_not_merged", "")
    except UserError:
        # there is no such adapter, which is told
        return
    if why:
        expected = f"null, or another adapter: '{flat['adapter.name']}' cannot be folded, {why}"
        yield Problem("fit.export_weights", repr(path), expected)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _pretraining(flat: Mapping[str, Any]) -> Iterator[Problem]:
    if not flat.get("model.weights"):
        expected = "random, or a file of weights made here (task=pretrain does not start from published ones)"
        yield Problem("model.weights", "null", expected)
    if flat["adapter.name"] != "full":
        shown = f"'{flat['adapter.name']}'"
        yield Problem("adapter", shown, "full: task=pretrain trains the network itself")


def _fusing(flat: Mapping[str, Any]) -> Iterator[Problem]:
    """What a fusion cannot be trained with."""
    weights = flat.get("data.train_modalities") or {}
    if sum(weight > 0 for weight in weights.values()) < 2:
        yield Problem("data.train_modalities", str(weights), "two or three modalities with a weight above 0")
    if flat.get("fusion.path"):
        yield Problem("fusion.path", repr(flat["fusion.path"]), "null: train.py makes a fusion of its own")
    if flat.get("fit.export_weights"):
        expected = "null: a fusion is no part of the network's weights"
        yield Problem("fit.export_weights", repr(flat["fit.export_weights"]), expected)
    if flat["fusion.name"] == "early" and flat.get("adapter.per"):
        expected = "null: early fusion sends all modalities through the network in one pass"
        yield Problem("adapter.per", repr(flat["adapter.per"]), expected)
    elif flat.get("adapter.per") == "tracer":
        yield Problem(
            "adapter.per", "'tracer'", "modality or site: scans given together have several tracers"
        )
    reference = flat["data.reference"]
    fused = [modality for modality, weight in weights.items() if weight > 0]
    if reference != "card" and reference not in fused:
        expected = f"{' or '.join(fused)}: the grid of a scan that is fused"
        yield Problem("data.reference", f"'{reference}'", expected)
    if not set(fused) & set(flat["data.modalities"]):
        yield Problem("data.modalities", str(flat["data.modalities"]), f"some of {', '.join(fused)}")
