"""Whole-case evaluation of one model on paired subjects: one row per structure, scan and prompt."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg import inference
from umdseg.backbones.base import Backbone
from umdseg.data.dataset import PairedDataset
from umdseg.data.geometry import Volume
from umdseg.data.io.nifti import read_image
from umdseg.evaluation.cases import case_table
from umdseg.evaluation.options import EvaluationOptions
from umdseg.evaluation.predictions import prediction_path, save_prediction, write_index
from umdseg.evaluation.progress import track
from umdseg.evaluation.references import Click, first_clicks, read_references
from umdseg.metrics import score_masks
from umdseg.registry import resolve
from umdseg.vocabulary import MODALITIES, Modality, Prompt, PromptKind, Subject

if TYPE_CHECKING:
    import pandas as pd

    from umdseg.inference import VolumeSession


@dataclass(frozen=True)
class _Task:
    """What stays the same over all subjects of one evaluation."""

    backbone: Backbone
    dataset: PairedDataset
    names: tuple[str, ...]
    options: EvaluationOptions
    prompts: Sequence[PromptKind]
    head: Mapping[str, Any]
    save_to: Path | None

    def ids(self) -> dict[str, int]:
        return {name: self.dataset.structures[name] for name in self.names}


@dataclass(frozen=True)
class _Case:
    """One scan of one subject: its reference, clicks, and what its rows start with."""

    reference: Volume
    modality: Modality
    subject: Subject
    clicks: Mapping[str, Click]
    head: Mapping[str, Any] = field(default_factory=dict)


def evaluate(
    backbone: Backbone,
    dataset: PairedDataset,
    subjects: Sequence[Subject],
    *,
    options: EvaluationOptions,
    stage: str,
    model: str,
    adapter: str = "none",
    fusion: str = "none",
    prompts: Sequence[PromptKind] = ("auto",),
    modalities: Sequence[Modality] = MODALITIES,
    structures: Sequence[str] | None = None,
    seed: int = 0,
    save_to: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Score a model on whole scans, on the grid of each scan's label.

    `auto` runs one pass for all structures and takes the best positive logit per voxel; `point`
    asks for each structure alone, with the subject's one first click, the same for every modality.
    What cannot be scored becomes a row with a status: a structure the model does not know by class
    (`class_unknown`), a modality the subject lacks (`modality_absent`), a prompt the model does not
    take (`prompt_unsupported`), a reference without voxels (`empty_reference`).

    Args:
        backbone: model; evaluated in eval mode, left in the mode it was in.
        dataset: where structures and their ids come from.
        subjects: who is scored.
        options: metrics, tolerance, overlap.
        stage: zero_shot, adapted or supervised.
        model: name for the table.
        adapter: name for the table.
        fusion: name for the table.
        prompts: prompt kinds.
        modalities: scans looked at.
        structures: those scored; None means all of the dataset.
        seed: seed of the run, for the table.
        save_to: folder for predictions (dataset ids, on the scan's own grid).
        progress: tell progress on standard error.

    Returns:
        The case table (see `umdseg.evaluation.cases`).

    Raises:
        UserError: a file of a subject is missing or broken.
    """
    options.validate()
    head = {
        **{"dataset": dataset.name, "seed": seed, "stage": stage, "model": model, "adapter": adapter},
        **{"fusion": fusion, "score_grid": "label"},
    }
    task = _Task(backbone, dataset, dataset.select(structures), options, prompts, head, save_to)
    rows: list[dict[str, Any]] = []
    with _evaluating(backbone):
        for subject in track(subjects, f"evaluate {stage}", "subject", progress):
            rows += _subject_rows(task, subject, modalities)
    return case_table(rows)


@contextmanager
def _evaluating(backbone: Backbone) -> Iterator[None]:
    # parts of a model in training may be in eval mode on purpose, so each gets its own mode back
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _subject_rows(task: _Task, subject: Subject, modalities: Sequence[Modality]) -> list[dict[str, Any]]:
    references = read_references(subject, task.dataset)
    clicks = first_clicks(references, subject.reference(), task.ids()) if set(task.prompts) - {"auto"} else {}
    pair = "+".join(m for m in MODALITIES if m in subject.scans)
    rows: list[dict[str, Any]] = []
    for modality in modalities:
        scan = subject.scans.get(modality)
        head = {
            **task.head,
            "subject": subject.id,
            "site": subject.site,
            "split": subject.split,
            "pair": pair,
        }
        head |= {"modality": modality, "tracer": (scan.tracer_or_sequence if scan else None) or ""}
        if scan is None or modality not in references:
            status = "modality_absent" if scan is None else "empty_reference"
            for kind in task.prompts:
                rows += [_unscored(head, name, kind, status) for name in task.names]
            continue
        image = read_image(scan.image, subject.id)
        case = _Case(references[modality], modality, subject, clicks, head)
        options = task.options
        session = inference.open(
            task.backbone, image, modality, overlap=options.overlap, precision=options.precision
        )
        for kind in task.prompts:
            rows += _prompt_rows(task, case, session, kind)
    if task.save_to is not None:
        write_index(task.save_to, subject, task.ids())
    return rows


def _prompt_rows(task: _Task, case: _Case, session: VolumeSession, kind: PromptKind) -> list[dict[str, Any]]:
    if kind not in task.backbone.card.prompts:
        return [_unscored(case.head, name, kind, "prompt_unsupported") for name in task.names]
    if kind == "auto":
        return _auto_rows(task, case, session)
    return _placed_rows(task, case, session, kind)


def _auto_rows(task: _Task, case: _Case, session: VolumeSession) -> list[dict[str, Any]]:
    """One pass for all structures the model knows."""
    known = [n for n in task.names if task.backbone.knows(n)]
    start = time.perf_counter()
    grid = case.reference.grid
    found = np.zeros(grid.shape, dtype=np.int16)
    if known:
        session.prompt(_prompts("auto", known, {}))
        values = np.array([0, *(task.dataset.structures[n] for n in known)], dtype=np.int16)
        found = values[inference.label_map(session, known, grid)]
    cost = _cost(start)
    rows = []
    for name in task.names:
        if name in known:
            rows.append(_scored(task, case, name, "auto", found == task.dataset.structures[name], cost))
        else:
            rows.append(_unscored(case.head, name, "auto", "class_unknown"))
    if known:
        _save(task, case, "auto", found)
    return rows


def _placed_rows(task: _Task, case: _Case, session: VolumeSession, kind: PromptKind) -> list[dict[str, Any]]:
    """One structure at a time; where two claim a voxel, the saved map takes the higher logit."""
    grid = case.reference.grid
    best = np.zeros(grid.shape, dtype=np.float32)
    found = np.zeros(grid.shape, dtype=np.int16)
    rows = []
    for name in task.names:
        label = task.dataset.structures[name]
        if name not in case.clicks or not (case.reference.array == label).any():
            rows.append(_unscored(case.head, name, kind, "empty_reference"))
            continue
        start = time.perf_counter()
        session.prompt(_prompts(kind, [name], case.clicks))
        mask = np.zeros(grid.shape, dtype=bool)
        for slab, logits in session.scores([name], grid):
            values = logits[0].float().cpu().numpy()
            mask[..., slab] = values > 0
            higher = values > best[..., slab]
            found[..., slab][higher] = label
            best[..., slab][higher] = values[higher]
        row = _scored(task, case, name, kind, mask, _cost(start))
        rows.append({**row, "clicks": 1, "condition": case.clicks[name].condition})
    _save(task, case, kind, found)
    return rows


def _prompts(kind: PromptKind, names: Sequence[str], clicks: Mapping[str, Click]) -> list[Prompt]:
    points = {name: clicks[name].point for name in names if name in clicks}
    return list(resolve("prompt", kind)().for_subject(list(names), points))


def _scored(
    task: _Task, case: _Case, name: str, kind: str, mask: NDArray[np.bool_], cost: Mapping[str, float]
) -> dict[str, Any]:
    reference = case.reference.array == task.dataset.structures[name]
    scores = score_masks(
        reference, mask, case.reference.grid.spacing, task.options.metrics, task.options.tolerance_mm
    )
    return {**case.head, "structure": name, "prompt": kind, "clicks": 0, **scores, **cost}


def _unscored(head: Mapping[str, Any], name: str, kind: str, status: str) -> dict[str, Any]:
    return {**head, "structure": name, "prompt": kind, "clicks": 0, "status": status}


def _cost(start: float) -> dict[str, float]:
    """Seconds since `start` and the process's (or the GPU's) peak memory so far in GB."""
    seconds = time.perf_counter() - start
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return {"seconds": seconds, "peak_gb": torch.cuda.max_memory_allocated() / 1e9}
    # kilobytes on Linux, bytes on macOS
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return {"seconds": seconds, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}


def _save(task: _Task, case: _Case, kind: str, found: NDArray[np.int16]) -> None:
    if task.save_to is not None:
        stage = str(task.head["stage"])
        path = prediction_path(task.save_to, case.subject.id, case.modality, stage, kind)
        save_prediction(found, case.reference.grid, path)
