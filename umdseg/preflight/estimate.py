"""Memory, time and disk of a run on this machine, and the numbers the estimate rests on."""

from __future__ import annotations

import math
import os
import resource
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from umdseg.backbones.base import Backbone
from umdseg.backbones.card import Card
from umdseg.config.hardware import device_of
from umdseg.config.schema import Settings
from umdseg.data.geometry import Grid, canonical_grid
from umdseg.data.hashes import cache_root
from umdseg.data.verdict import Finding, Level
from umdseg.inference.classes import DENSE_BYTES
from umdseg.inference.precision import autocast
from umdseg.inference.stitch import window_slices
from umdseg.inference.window import SLAB_NUMBERS
from umdseg.preflight.check import Check, count
from umdseg.preflight.cost import Cost, inference_cost, throughput, training_cost

# reading, resampling and scoring one voxel of a scan's own grid for one structure: CPU seconds measured on
# three phantom scans (13 structures, Dice; 2.0e-8 to 2.3e-8), without the network
_VOXEL_S = 2.2e-8


@dataclass(frozen=True)
class Work:
    """What the run will do.

    Attributes:
        train: grids of the training scans.
        score: grids of the scored scans.
        names: structures asked for.
        known: those of them that the model can be asked for by class.
        stages: how often every scored scan is predicted.
        fits: whether anything is fitted.
        unknown: scans whose grid is not known, because the run makes them or they are broken.
    """

    train: Sequence[Grid]
    score: Sequence[Grid]
    names: Sequence[str]
    known: Sequence[str]
    stages: int
    fits: bool
    unknown: int = 0


def estimate(settings: Settings, backbone: Backbone, work: Work) -> list[Check]:
    """Memory, time and disk, compared with what is free.

    Args:
        settings: the configuration.
        backbone: with its adapter injected; it is moved to the meta device and cannot compute afterwards.
        work: what the run will do.
    """
    device = device_of(settings.trainer.accelerator)
    trained = [p for p in backbone.parameters() if p.requires_grad] if work.fits else []
    model = sum(p.nbytes for p in (*backbone.parameters(), *backbone.buffers()))
    # gradients and both moments of AdamW
    learning = 3 * sum(p.nbytes for p in trained)
    backbone.to("meta")
    known = list(work.known)
    try:
        fit = training_cost(backbone.train(), known, settings.data.batch_size) if trained and known else None
        look = inference_cost(backbone.eval(), known)
    # a network that looks at the values (makes a picture of a slice, takes a z-score in its window) fails in
    # its own way when there are none; an estimate that cannot be had stops nothing
    except Exception:
        why = f"not estimated: {backbone.card.name} cannot be run on tensors without values"
        return [Check("memory", why), Check("time", why), _disk(settings, backbone.card, work, learning)]
    rate = None
    if look.heaviest is not None:
        rate = throughput(look.heaviest, device, lambda: autocast(settings.evaluation.precision, device))
    fitting = model + learning + (fit.peak_bytes if fit else 0)
    volume = _largest_volume(backbone.card, work)
    return [
        _memory(device, fitting, model + look.peak_bytes, volume, fits=fit is not None),
        _time(settings, backbone.card, work, fit, look, rate),
        _disk(settings, backbone.card, work, learning),
    ]


def prepared_shape(card: Card, grid: Grid) -> tuple[int, int, int]:
    """Voxels of a scan on the card's grid, before air is cropped off."""
    whole = canonical_grid(grid, card.spacing, card.orientation).shape
    x, y, z = (max(n, w) for n, w in zip(whole, card.window, strict=True))
    return x, y, z


def _largest_volume(card: Card, work: Work) -> int:
    """Bytes of the largest scan in evaluation: its voxels, the prepared image, the stitched channels."""
    largest, classes = 0, len(work.known)
    for grid in work.score:
        own, prepared = math.prod(grid.shape), math.prod(prepared_shape(card, grid))
        channels = classes + 1
        canvas = min(channels * prepared * 4, DENSE_BYTES)
        # as read and as float32; label and prediction; one slab of logits
        slab = min(SLAB_NUMBERS, own * (channels + classes + 4)) * 4
        largest = max(largest, own * 12 + prepared * 4 + canvas + slab)
    return largest


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
    settings: Settings, card: Card, work: Work, fit: Cost | None, look: Cost, rate: float | None
) -> Check:
    if rate is None:
        return Check("time", "not estimated: the model has no convolution to measure")
    steps = settings.fit.steps * settings.trainer.accumulate_grad_batches
    fitting = steps * fit.flops / rate if fit else 0.0
    kinds = settings.prompt.kinds
    passes, voxels = 0, 0
    overlap = card.overlap if settings.evaluation.overlap is None else settings.evaluation.overlap
    for grid in work.score:
        windows = window_slices(prepared_shape(card, grid), card.window, overlap)
        passes += len(windows) * ("auto" in kinds)
        # a click opens one window
        passes += len(work.names) * sum(kind != "auto" for kind in kinds)
        voxels += math.prod(grid.shape) * len(kinds)
    scoring = work.stages * (passes * look.flops / rate + voxels * len(work.names) * _VOXEL_S)
    parts = [f"fitting {_clock(fitting)}"] if fit else []
    if work.score:
        parts += [f"{work.stages} x predicting {passes:,} windows at most {_clock(scoring / work.stages)}"]
    if work.unknown:
        parts += [f"not counted: {count(work.unknown, 'scan')} not there or not usable yet"]
    basis = f"{look.flops / 1e9:,.0f} GFLOP a window at {rate / 1e9:,.0f} GFLOP/s measured here"
    return Check("time", f"{_clock(fitting + scoring)} ({', '.join(parts)}; {basis})")


def _disk(settings: Settings, card: Card, work: Work, learning: int) -> Check:
    cache = cache_root(settings.data.cache_dir)
    # image float32 and label int16; compression makes it less
    cached = sum(math.prod(prepared_shape(card, grid)) * 6 for grid in work.train) if work.fits else 0
    kept = 0
    if settings.run.save_predictions:
        kept = sum(math.prod(g.shape) for g in work.score) * work.stages * len(settings.prompt.kinds) // 10
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
