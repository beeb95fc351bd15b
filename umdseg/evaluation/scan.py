"""One scan under one model: predict, score on the label's grid, save on the scan's own grid."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg import inference
from umdseg.backbones.base import Backbone
from umdseg.data.dataset import PairedDataset
from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import GRID_TOLERANCE_MM
from umdseg.evaluation.cases import NO_LABEL
from umdseg.evaluation.options import EvaluationOptions
from umdseg.evaluation.predictions import prediction_path, save_prediction
from umdseg.evaluation.references import Click, DrawnBox
from umdseg.evaluation.rows import unscored
from umdseg.metrics import score_masks
from umdseg.registry import resolve
from umdseg.vocabulary import Modality, Prompt, PromptKind, Subject

if TYPE_CHECKING:
    from umdseg.inference import VolumeSession


@dataclass(frozen=True)
class Task:
    """What stays the same over all subjects of one evaluation."""

    backbone: Backbone
    dataset: PairedDataset
    names: tuple[str, ...]
    options: EvaluationOptions
    prompts: Sequence[PromptKind]
    head: Mapping[str, Any]
    save_to: Path | None

    def ids(self) -> dict[str, int]:
        """Structure -> id in the dataset's labels."""
        return {name: self.dataset.structures[name] for name in self.names}


@dataclass(frozen=True)
class Case:
    """One scan of one subject: its reference (None: no label), clicks, boxes and what its rows start with."""

    subject: Subject
    modality: Modality
    image: Volume
    reference: Volume | None
    clicks: Mapping[str, Click]
    head: Mapping[str, Any] = field(default_factory=dict)
    boxes: Mapping[str, DrawnBox] = field(default_factory=dict)

    def grids(self, save: bool) -> list[Grid]:
        """Grids that predictions are wanted on: the label's first, the scan's own if it is another one."""
        own = self.image.grid
        if self.reference is None or self.reference.grid.same_as(own, GRID_TOLERANCE_MM):
            return [own]
        return [self.reference.grid, own] if save else [self.reference.grid]


class _Map:
    """A label map put together structure by structure: the highest positive logit takes a voxel."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.labels = np.zeros(grid.shape, dtype=np.int16)
        self._best = np.zeros(grid.shape, dtype=np.float32)

    def add(self, session: VolumeSession, name: str, label: int) -> NDArray[np.bool_]:
        """Ask for one structure, put it into the map and return its own mask."""
        mask = np.zeros(self.grid.shape, dtype=bool)
        for slab, logits in session.scores([name], self.grid):
            values = logits[0].float().cpu().numpy()
            mask[..., slab] = values > 0
            higher = values > self._best[..., slab]
            self.labels[..., slab][higher] = label
            self._best[..., slab][higher] = values[higher]
        return mask


def scan_rows(task: Task, case: Case) -> list[dict[str, Any]]:
    """Rows of one scan, for every prompt and structure; predictions are saved where the task says.

    A scan without a label is predicted only to be saved.
    """
    # a structure learned for one modality is unknown in another
    with task.backbone.routed(case.modality):
        return _scan_rows(task, case)


def _scan_rows(task: Task, case: Case) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    session = None
    if case.reference is not None or task.save_to is not None:
        options = task.options
        session = inference.open(
            task.backbone, case.image, case.modality, overlap=options.overlap, precision=options.precision
        )
    for kind in task.prompts:
        found: list[dict[str, Any]] = []
        if kind not in task.backbone.card.prompts:
            found = [unscored(case.head, name, kind, "prompt_unsupported") for name in task.names]
        elif session is not None:
            found = (_auto if kind in ("auto", "text") else _placed)(task, case, session, kind)
        if case.reference is None:
            found = [unscored(case.head, n, kind, "empty_reference", NO_LABEL) for n in task.names]
        rows += found
    return rows


def _auto(task: Task, case: Case, session: VolumeSession, kind: PromptKind) -> list[dict[str, Any]]:
    """One pass for all structures the model knows."""
    known = [n for n in task.names if task.backbone.knows(n)]
    start = time.perf_counter()
    grids = case.grids(task.save_to is not None)
    found = np.zeros(grids[0].shape, dtype=np.int16)
    values = np.array([0, *(task.dataset.structures[n] for n in known)], dtype=np.int16)
    if known:
        session.prompt(_prompts(kind, known, case))
        found = values[inference.label_map(session, known, grids[0])]
    cost = _cost(start)
    rows = []
    for name in task.names:
        if name in known:
            rows.append(_scored(task, case, name, kind, found == task.dataset.structures[name], cost))
        else:
            rows.append(unscored(case.head, name, kind, "class_unknown"))
    if known and task.save_to is not None:
        own = found if len(grids) == 1 else values[inference.label_map(session, known, grids[1])]
        _save(task, case, kind, own)
    return rows


def _placed(task: Task, case: Case, session: VolumeSession, kind: PromptKind) -> list[dict[str, Any]]:
    """One structure at a time; where two claim a voxel, the saved map takes the higher logit."""
    maps = [_Map(grid) for grid in case.grids(task.save_to is not None)]
    given: Mapping[str, Click | DrawnBox] = case.boxes if kind == "box" else case.clicks
    rows = []
    for name in task.names:
        label = task.dataset.structures[name]
        missing = case.reference is not None and not (case.reference.array == label).any()
        if name not in given or missing:
            rows.append(unscored(case.head, name, kind, "empty_reference"))
            continue
        start = time.perf_counter()
        session.prompt(_prompts(kind, [name], case))
        mask = maps[0].add(session, name, label)
        row = _scored(task, case, name, kind, mask, _cost(start))
        rows.append({**row, "clicks": int(kind != "box"), "condition": given[name].condition})
        for other in maps[1:]:
            other.add(session, name, label)
    if task.save_to is not None:
        _save(task, case, kind, maps[-1].labels)
    return rows


def _prompts(kind: PromptKind, names: Sequence[str], case: Case) -> list[Prompt]:
    where: Mapping[str, object] = {name: click.point for name, click in case.clicks.items()}
    if kind == "box":
        where = {name: drawn.box for name, drawn in case.boxes.items()}
    return list(resolve("prompt", kind)().for_subject(list(names), where))


def _scored(
    task: Task, case: Case, name: str, kind: str, mask: NDArray[np.bool_], cost: Mapping[str, float]
) -> dict[str, Any]:
    if case.reference is None:
        return unscored(case.head, name, kind, "empty_reference", NO_LABEL)
    reference = case.reference.array == task.dataset.structures[name]
    options, spacing = task.options, case.reference.grid.spacing
    scores = score_masks(reference, mask, spacing, options.metrics, options.tolerance_mm)
    return {**case.head, "structure": name, "prompt": kind, "clicks": 0, **scores, **cost}


def _cost(start: float) -> dict[str, float]:
    """Seconds since `start` and the process's (or the GPU's) peak memory so far in GB."""
    seconds = time.perf_counter() - start
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return {"seconds": seconds, "peak_gb": torch.cuda.max_memory_allocated() / 1e9}
    # kilobytes on Linux, bytes on macOS
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return {"seconds": seconds, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}


def _save(task: Task, case: Case, kind: str, found: NDArray[np.int16]) -> None:
    if task.save_to is not None:
        stage = str(task.head["stage"])
        path = prediction_path(task.save_to, case.subject.id, case.modality, stage, kind)
        save_prediction(found, case.image.grid, path)
