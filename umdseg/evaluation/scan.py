"""One scan under one model: predict, score on each score grid, save on the scan's own grid."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg import inference
from umdseg.backbones.base import Backbone
from umdseg.data.dataset import PairedDataset
from umdseg.data.fov import Reference
from umdseg.data.geometry import Grid, Volume
from umdseg.evaluation.cases import NO_LABEL
from umdseg.evaluation.contours import CONTOUR_KINDS, DrawnContour
from umdseg.evaluation.inputs import JOINT, column_of
from umdseg.evaluation.options import EvaluationOptions
from umdseg.evaluation.predictions import prediction_path, save_prediction
from umdseg.evaluation.references import Click, DrawnBox
from umdseg.evaluation.rows import unscored
from umdseg.evaluation.targets import Target
from umdseg.fusion.base import Fused
from umdseg.inference.together import open_together
from umdseg.registry import resolve
from umdseg.vocabulary import Modality, Origin, Prompt, PromptKind, Subject

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
    reference: Reference
    bad_intensity: str

    def ids(self) -> dict[str, int]:
        """Structure -> id in the dataset's labels."""
        return {name: self.dataset.structures[name] for name in self.names}


@dataclass(frozen=True)
class Case:
    """One input: a scan of a subject, or several that the model takes together.

    Attributes:
        subject: whose.
        volumes: the scans given.
        grid: what predictions are saved on.
        targets: what it is scored on, the label's grid first.
        clicks: first click by structure.
        head: what its rows start with.
        boxes: box by structure.
        condition: what all its rows say of how they were scored.
        contours: lasso or scribble by structure, per kind.
    """

    subject: Subject
    volumes: Mapping[Modality, Volume]
    grid: Grid
    targets: Sequence[Target]
    clicks: Mapping[str, Click]
    head: Mapping[str, Any] = field(default_factory=dict)
    boxes: Mapping[str, DrawnBox] = field(default_factory=dict)
    condition: str = ""
    contours: Mapping[PromptKind, Mapping[str, DrawnContour]] = field(default_factory=dict)

    def given(self, kind: PromptKind) -> Mapping[str, Click | DrawnBox | DrawnContour]:
        """What prompts of a kind are made of, by structure."""
        if kind in CONTOUR_KINDS:
            return self.contours.get(kind, {})
        return self.boxes if kind == "box" else self.clicks

    @property
    def column(self) -> str:
        """What tells this input from others of the subject, in files and tables."""
        return column_of(self.head["modality"], self.head["subset"])

    @property
    def origin(self) -> Origin:
        """What chooses among several adapters; of scans given together, their names and the PET's tracer."""
        given = list(self.volumes)
        first = self.subject.origin("pet" if "pet" in given else given[0])
        return replace(first, modality=JOINT.join(given))

    @property
    def labelled(self) -> bool:
        """Whether there is anything to score against."""
        return self.targets[0].truth is not None

    def scorable(self, name: str) -> bool:
        """Whether there is anything to score a structure against."""
        return self.labelled and self.subject.tells(name)

    def grids(self, save: bool) -> list[Grid]:
        """Grids that predictions are wanted on: the scan's own to save them, then those to score on."""
        scored = [target.grid for target in self.targets] if self.labelled else []
        return [self.grid, *scored] if save else scored

    def unscored(self, name: str, kind: str, status: str, condition: str = "") -> list[dict[str, Any]]:
        """One row per score grid that says why there is no score.

        What the label does not tell about is `not_annotated`, whatever the model could have said.
        """
        if self.labelled and not self.subject.tells(name):
            status = "not_annotated"
        rows = [unscored(self.head, name, kind, status, condition) for _ in self.targets]
        return [{**row, "score_grid": t.name} for row, t in zip(rows, self.targets, strict=True)]


class _Map:
    """A label map put together structure by structure: the highest positive logit takes a voxel."""

    def __init__(self, grid: Grid) -> None:
        self.labels = np.zeros(grid.shape, dtype=np.int16)
        self._best = np.zeros(grid.shape, dtype=np.float32)

    def add(self, slab: slice, logits: NDArray[np.float32], label: int) -> None:
        """Let a structure take the voxels of a slab where its logit (X, Y, dz) is the highest so far."""
        higher = logits > self._best[..., slab]
        self.labels[..., slab][higher] = label
        self._best[..., slab][higher] = logits[higher]


def scan_rows(task: Task, case: Case) -> list[dict[str, Any]]:
    """Rows of one scan, for every prompt and structure; predictions are saved where the task says.

    A scan without a label, or whose label tells of no structure, is predicted only to be saved.
    """
    # a structure learned for one modality (tracer, site) is unknown in another
    with task.backbone.routed(case.origin):
        rows = _scan_rows(task, case)
    if not case.condition:
        return rows
    told = ["; ".join(filter(None, [case.condition, row.get("condition")])) for row in rows]
    return [{**row, "condition": condition} for row, condition in zip(rows, told, strict=True)]


def _open(task: Task, case: Case) -> VolumeSession:
    backbone, overlap, precision = task.backbone, task.options.overlap, task.options.precision
    if isinstance(backbone, Fused) and backbone.takes:
        backbone = backbone.part(list(case.volumes))
    if backbone.takes:
        return open_together(backbone, case.volumes, overlap=overlap, precision=precision, origin=case.origin)
    (image,) = case.volumes.values()
    return inference.open(backbone, image, case.origin, overlap=overlap, precision=precision)


def _scan_rows(task: Task, case: Case) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    session = None
    if (case.labelled and any(map(case.subject.tells, task.names))) or task.save_to is not None:
        session = _open(task, case)
    for kind in task.prompts:
        if kind not in task.backbone.card.prompts:
            found = [r for name in task.names for r in case.unscored(name, kind, "prompt_unsupported")]
        elif session is not None:
            found = (_auto if kind in ("auto", "text") else _placed)(task, case, session, kind)
        else:
            found = [r for name in task.names for r in case.unscored(name, kind, "not_annotated")]
        if not case.labelled:
            found = [r for n in task.names for r in case.unscored(n, kind, "empty_reference", NO_LABEL)]
        rows += found
    return rows


def _on_grids(grids: Sequence[Grid], ask: Callable[[Grid], NDArray[Any]]) -> list[NDArray[Any]]:
    """Ask on every grid; what is a part of an earlier one is cut from its answer."""
    found: list[NDArray[Any]] = []
    for grid in grids:
        places = ((array, grid.within(whole)) for array, whole in zip(found, grids, strict=False))
        part = next((array[place] for array, place in places if place is not None), None)
        found.append(ask(grid) if part is None else part)
    return found


def _auto(task: Task, case: Case, session: VolumeSession, kind: PromptKind) -> list[dict[str, Any]]:
    """One pass for all structures the model knows."""
    known = [n for n in task.names if task.backbone.knows(n)]
    values = np.array([0, *(task.dataset.structures[n] for n in known)], dtype=np.int16)
    start = time.perf_counter()
    grids = case.grids(task.save_to is not None)
    maps: list[NDArray[Any]] = []
    if known:
        session.prompt(_prompts(kind, known, case))
        maps = _on_grids(grids, lambda grid: values[inference.label_map(session, known, grid)])
        if task.save_to is not None:
            _save(task, case, kind, maps[0])
    cost = _cost(start)
    rows = []
    for name in task.names:
        if name in known and case.scorable(name):
            label = task.dataset.structures[name]
            masks = [found == label for found in maps[-len(case.targets) :]]
            rows += _scored(task, case, name, kind, masks, cost)
        else:
            rows += case.unscored(name, kind, "class_unknown")
    return rows


def _placed(task: Task, case: Case, session: VolumeSession, kind: PromptKind) -> list[dict[str, Any]]:
    """One structure at a time; where two claim a voxel, the saved map takes the higher logit."""
    grids = case.grids(task.save_to is not None)
    saved = _Map(case.grid)
    given = case.given(kind)
    rows = []
    for name in task.names:
        label, truth = task.dataset.structures[name], case.targets[0].truth
        missing = truth is not None and not (truth == label).any()
        if name not in given or missing or not case.subject.tells(name):
            rows += case.unscored(name, kind, "empty_reference")
            continue

        def ask(grid: Grid, name: str = name, label: int = label) -> NDArray[np.bool_]:
            mask = np.zeros(grid.shape, dtype=bool)
            for slab, logits in session.scores([name], grid):
                values = logits[0].float().cpu().numpy()
                mask[..., slab] = values > 0
                if grid is case.grid:
                    saved.add(slab, values, label)
            return mask

        start = time.perf_counter()
        session.prompt(_prompts(kind, [name], case))
        masks = _on_grids(grids, ask)
        cost = {**_cost(start), "clicks": int(kind != "box"), "condition": given[name].condition}
        if case.labelled:
            rows += _scored(task, case, name, kind, masks[-len(case.targets) :], cost)
    if task.save_to is not None:
        _save(task, case, kind, saved.labels)
    return rows


def _prompts(kind: PromptKind, names: Sequence[str], case: Case) -> list[Prompt]:
    where = {name: drawn.place for name, drawn in case.given(kind).items()}
    return list(resolve("prompt", kind)().for_subject(list(names), where))


def _scored(
    task: Task,
    case: Case,
    name: str,
    kind: str,
    masks: Sequence[NDArray[np.bool_]],
    more: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One row per score grid; `masks` are the prediction on them."""
    rows = []
    for target, mask in zip(case.targets, masks, strict=True):
        scores = target.scores(task.dataset.structures[name], mask, task.options)
        told = {"score_grid": target.name, "structure": name, "prompt": kind, "clicks": 0}
        rows.append({**case.head, **told, **scores, **more})
    return rows


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
        path = prediction_path(task.save_to, case.subject.id, case.column, stage, kind)
        save_prediction(found, case.grid, path)
