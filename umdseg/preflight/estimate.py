"""Memory, time and disk of a run on this machine, and the numbers the estimate rests on."""

from __future__ import annotations

import math
import os
import resource
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from umdseg.backbones.base import Backbone
from umdseg.backbones.card import Card
from umdseg.config.hardware import device_of
from umdseg.config.schema import Settings
from umdseg.data.geometry import Grid
from umdseg.data.hashes import cache_root
from umdseg.data.verdict import Finding, Level
from umdseg.inference.precision import autocast
from umdseg.preflight.check import Check, count
from umdseg.preflight.cost import Cost, product_throughput, throughput, writing
from umdseg.preflight.plans import Plan, plan_of
from umdseg.preflight.plans.base import prepared_shape
from umdseg.preflight.plans.tried import TriedPlan
from umdseg.preflight.work import Work

# reading, resampling and scoring one voxel of a scan's own grid for one structure: CPU seconds measured on
# three phantom scans (13 structures, Dice; 2.0e-8 to 2.3e-8), without the network
_VOXEL_S = 2.2e-8


def estimate(settings: Settings, backbone: Backbone, work: Work) -> list[Check]:
    """Memory, time and disk, compared with what is free.

    Args:
        settings: the configuration.
        backbone: with its adapter injected; it loses its weights and cannot be used afterwards.
        work: what the run will do.
    """
    device = device_of(settings.trainer.accelerator)
    trained = [p for p in backbone.parameters() if p.requires_grad] if work.fits else []
    model = sum(p.nbytes for p in (*backbone.parameters(), *backbone.buffers()))
    passes, own = (work.joined.passes, work.joined.nbytes) if work.joined else (1, 0)
    model += own
    # gradients and both moments of AdamW
    learning = 3 * (sum(p.nbytes for p in trained) + (own if work.fits else 0))
    disk = _disk(settings, backbone.card, work, learning)
    backbone.to("meta")
    try:
        fit, plan, basis = _counted(settings, backbone, work, bool((trained or own) and work.known))
    # a network that looks at the values fails in its own way when there are none, and a second time when they
    # are arbitrary; an estimate that cannot be had stops nothing
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        said = f"{type(error).__name__}: {said}"
        why = f"not estimated: one pass of {settings.model.name} cannot be tried ({said})"
        return [Check("memory", why), Check("time", why), disk]
    if not plan.steps:
        why = f"not estimated: {backbone.card.name} knows none of the structures by class"
        return [Check("memory", why), Check("time", why), disk]
    # what was made of each scan is there until all are fused
    looking = model + passes * max(step.cost.peak_bytes for step in plan.steps)
    volume = max((_read(grid, work, plan.card) + plan.held(grid) for grid in work.grids), default=0)
    fitting = model + learning + (passes * fit.peak_bytes if fit else 0)
    pace = _pace(device, settings.evaluation.precision, [step.cost for step in plan.steps])
    return [
        _memory(device, fitting, looking, volume, fits=fit is not None),
        _time(settings, plan, work, fit, pace, basis),
        disk,
    ]


def _counted(settings: Settings, backbone: Backbone, work: Work, fits: bool) -> tuple[Cost | None, Plan, str]:
    """Costs of a fitting step and of passes, and what they rest on where that is not the whole pass."""
    known, batch = list(work.known), settings.data.batch_size
    try:
        plan = plan_of(settings, backbone.eval(), known)
        fit = plan.training(batch) if fits else None
        return fit, plan, ""
    except Exception:
        if backbone.session.__func__ is not Backbone.session and not backbone.has_dense:  # type: ignore[attr-defined]
            raise
        tried = TriedPlan(settings, backbone, known)
        return tried.training(batch) if fits else None, tried, tried.basis


def _read(grid: Grid, work: Work, card: Card) -> int:
    """Bytes of one scan whatever the model does: as read and as float32, label and prediction.

    Of a fusion also the further scans as prepared; the plan knows of one.
    """
    further = work.channels - 1 if work.joined else 0
    return math.prod(grid.shape) * (8 * work.channels + 4) + 4 * further * math.prod(
        prepared_shape(card, grid)
    )


@dataclass(frozen=True)
class Pace:
    """What this machine does in a second.

    Attributes:
        convolution: FLOPs of the model's heaviest convolution; None where it is not worth measuring.
        product: the same of its heaviest matrix product.
        writing: bytes of tensors made.
    """

    convolution: float | None
    product: float | None
    writing: float

    def seconds(self, cost: Cost) -> float:
        """Time of one pass."""
        # operations of a kind that was not measured are a small part
        convolution = self.convolution or self.product or math.inf
        product = self.product or self.convolution or math.inf
        multiplying = (cost.flops - cost.products) / convolution + cost.products / product
        return multiplying + cost.made_bytes / self.writing

    def told(self) -> str:
        """In words."""
        parts = [(self.convolution, "convolutions"), (self.product, "matrix products")]
        found = [(rate, what) for rate, what in parts if rate is not None]
        if len(found) == 1:
            return f"{found[0][0] / 1e9:,.0f} GFLOP/s"
        return " and ".join(f"{rate / 1e9:,.0f} GFLOP/s ({what})" for rate, what in found)


def _pace(device: torch.device, precision: str, costs: Sequence[Cost]) -> Pace | None:
    """Measured on whichever pass has most of each; None where there is nothing to measure."""

    def context() -> AbstractContextManager[Any]:
        return autocast(precision, device)

    whole = sum(cost.flops for cost in costs)
    convolution = max(costs, key=lambda cost: cost.flops - cost.products)
    product = max(costs, key=lambda cost: cost.products)
    # a kind with less than a twentieth of the work is not worth a measurement
    many = 20 * (convolution.flops - convolution.products) >= whole
    convolutions = (
        throughput(convolution.heaviest, device, context) if many and convolution.heaviest else None
    )
    several = 20 * product.products >= whole
    products = product_throughput(product.product, device, context) if several and product.product else None
    return (
        None if convolutions is None and products is None else Pace(convolutions, products, writing(device))
    )


def _memory(device: torch.device, fitting: int, looking: int, volume: int, fits: bool) -> Check:
    own = _resident()
    findings = []
    free = _free_memory()
    if device.type == "cuda":
        ram = own + volume
        card_free = torch.cuda.mem_get_info(device)[0]
        findings += list(_short("GPU memory", max(fitting, looking), card_free, "a smaller data.batch_size"))
        told = f"GPU {_gb(max(fitting, looking))} of {_gb(card_free)} free, "
    else:
        ram = own + max(fitting, looking + volume)
        told = ""
    findings += list(_short("memory", ram, free, "a smaller data.batch_size, or data of smaller scans"))
    parts = f"fitting {_gb(fitting)}, " if fits else ""
    parts += f"predicting {_gb(looking)} + {_gb(volume)} for the largest scan"
    return Check("memory", f"{told}RAM {_gb(ram)} of {_gb(free)} free ({parts})", tuple(findings))


def _time(
    settings: Settings, plan: Plan, work: Work, fit: Cost | None, pace: Pace | None, basis: str
) -> Check:
    if pace is None:
        return Check("time", "not estimated: the model has no convolution or matrix product to measure")
    steps = settings.fit.steps * settings.trainer.accumulate_grad_batches
    mean = work.joined.mean_passes if work.joined else 1.0
    fitting = steps * mean * pace.seconds(fit) if fit else 0.0
    parts = [f"fitting {_clock(fitting)}"] if fit else []
    scoring = 0.0
    for times, scans in ((work.stages, [(grid, 1) for grid in work.score]), (1, work.together)):
        if times and scans:
            seconds, told = _predicting(settings, plan, scans, work.names, pace)
            scoring += times * seconds
            parts += [f"{times} x predicting {told} {plan.bound} {_clock(seconds)}"]
    if work.unknown:
        parts += [f"not counted: {count(work.unknown, 'scan')} not there or not usable yet"]
    costs = ", ".join(f"{_gflop(step.cost.flops)} GFLOP a {step.one}" for step in plan.steps)
    about = f"{costs}{basis} at {pace.told()} measured here"
    return Check("time", f"{_clock(fitting + scoring)} ({', '.join(parts)}; {about})")


def _predicting(
    settings: Settings, plan: Plan, scans: Sequence[tuple[Grid, int]], names: Sequence[str], pace: Pace
) -> tuple[float, str]:
    """Seconds of predicting and scoring (grid, passes per window), and how many passes in words."""
    kinds = [kind for kind in settings.prompt.kinds if kind in plan.card.prompts]
    passes, voxels = dict.fromkeys((step.one for step in plan.steps), 0), 0
    for grid, times in scans:
        for one, number in plan.passes(grid, kinds, names).items():
            passes[one] += number * times
        voxels += math.prod(grid.shape) * len(kinds)
    network = sum(passes[step.one] * pace.seconds(step.cost) for step in plan.steps)
    told = " and ".join(f"{passes[step.one]:,} {step.many}" for step in plan.steps)
    return network + voxels * len(names) * _VOXEL_S, told


def _gflop(flops: int) -> str:
    return f"{flops / 1e9:,.0f}" if flops >= 1e10 else f"{flops / 1e9:.2g}"


def _disk(settings: Settings, card: Card, work: Work, learning: int) -> Check:
    cache = cache_root(settings.data.cache_dir)
    # image float32 and label int16; compression makes it less
    cached = sum(math.prod(prepared_shape(card, grid)) * 6 for grid in work.train) if work.fits else 0
    kept = 0
    if settings.run.save_predictions:
        voxels = sum(math.prod(grid.shape) for grid in work.score) * work.stages
        voxels += sum(math.prod(grid.shape) for grid, _ in work.together)
        kept = voxels * len(settings.prompt.kinds) // 10
    run = 2 * learning + kept
    findings: list[Finding] = []
    for what, needed, place in (("cache", cached, cache), ("run folder", run, settings.runs_dir)):
        findings += _short(f"disk for the {what} ({place})", needed, _free_disk(place), "another folder")
    numbers = f"cache at most {_gb(cached)} of {_gb(_free_disk(cache))} free, run folder {_gb(run)}"
    return Check("disk", numbers, tuple(findings))


def _short(what: str, needed: float, free: float, expected: str) -> Iterator[Finding]:
    """Refuse only what cannot be; the estimate is good to a factor of two."""
    if needed > free / 2:
        level: Level = "refuse" if needed > 2 * free else "warn"
        told = f"{what}: about {_gb(needed)} needed, {_gb(free)} free"
        yield Finding(level, told, "", f"{expected}, or a larger machine")


def _resident() -> int:
    # kilobytes on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _free_memory() -> int:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("MemAvail")) * 1024
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_disk(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _gb(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.0f} MB"


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
