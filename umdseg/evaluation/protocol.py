"""Whole-case evaluation of one model on paired subjects: one row per structure, scan and prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from umdseg.backbones.base import Backbone
from umdseg.data.dataset import PairedDataset
from umdseg.data.fov import ON_CT, Reference
from umdseg.data.geometry import Volume
from umdseg.data.intensity import check_intensity
from umdseg.data.io.nifti import read_image
from umdseg.data.options import refuse_repeats
from umdseg.evaluation.cases import case_table
from umdseg.evaluation.contours import CONTOUR_KINDS
from umdseg.evaluation.inputs import inputs_of, label_condition, looked_at, scored_scan, shown_scan
from umdseg.evaluation.options import EvaluationOptions
from umdseg.evaluation.predictions import JointScan, write_index
from umdseg.evaluation.rows import input_head, run_head, unscored
from umdseg.evaluation.scan import Case, Task, scan_rows
from umdseg.evaluation.scans import scan_row, write_scans
from umdseg.evaluation.targets import Truth
from umdseg.progress import track
from umdseg.vocabulary import MODALITIES, Modality, PromptKind, Subject

if TYPE_CHECKING:
    import pandas as pd


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
    fold: int | None = None,
    shots: int | None = None,
    save_to: Path | None = None,
    scans_to: Path | None = None,
    reference: Reference = ON_CT,
    bad_intensity: str = "refuse",
    progress: bool = True,
) -> pd.DataFrame:
    """Score a model on whole scans, on the grid of each scan's label.

    A model that takes several scans of one person together (`backbone.takes`) is scored on them as one: its
    rows say `ct+pet`, `subset` what it was given. They are scored against the label of the reference scan,
    or of the first other one that has a label, which `condition` then says (`label_from_pet`). With
    `options.label` everything is scored against the label of that modality, where the subject has it.

    With `common` among `options.score_grids` each scan of a subject with several is scored once more on the
    subject's reference grid, within the field of view that all its scans of `modalities` share.

    `auto` runs one pass for all structures and takes the best positive logit per voxel; `point`
    asks for each structure alone, with the subject's one first click, `box` with its one box around the
    reference, the same for every modality.
    What cannot be scored becomes a row with a status: a structure the model does not know by class
    (`class_unknown`), a modality the subject lacks (`modality_absent`), a prompt the model does not
    take (`prompt_unsupported`), a reference without voxels (`empty_reference`), a structure that the
    subject's labels do not tell about (`not_annotated`, see `Subject.annotated`), a scan without a label
    (`empty_reference` with condition `no_label`; these two are still predicted where predictions are saved).

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
        fold: fold of the run, for the table.
        shots: training subjects the run was allowed, for the table.
        save_to: folder for predictions (dataset ids, on the scan's own grid).
        scans_to: file for grid, values and verdict of every scan (see `umdseg.evaluation.scans`).
        reference: the reference grid, for first clicks and common scores.
        bad_intensity: refuse stops at a scan whose values cannot be what its units say; warn goes on.
        progress: tell progress on standard error.

    Returns:
        The case table (see `umdseg.evaluation.cases`).

    Raises:
        UserError: a file of a subject is missing or broken, its values are refused, a name is given twice, or
            a modality the model takes together with others is not among `modalities`.
    """
    options.validate()
    refuse_repeats("data.modalities", modalities)
    inputs = inputs_of(backbone, modalities)
    head = {
        **run_head(dataset, seed, fold, shots),
        **{"stage": stage, "model": model, "adapter": adapter, "fusion": fusion},
    }
    names = dataset.select(structures)
    task = Task(backbone, dataset, names, options, prompts, head, save_to, reference, bad_intensity)
    rows: list[dict[str, Any]] = []
    scans: list[dict[str, str]] = []
    with _evaluating(backbone):
        for subject in track(subjects, f"evaluate {stage}", "subject", progress):
            rows += _subject_rows(task, subject, inputs, scans)
    if scans_to is not None:
        write_scans(scans, scans_to)
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


def _subject_rows(
    task: Task, subject: Subject, inputs: Sequence[tuple[Modality, ...]], scans: list[dict[str, str]]
) -> list[dict[str, Any]]:
    truth = Truth.read(subject, task.dataset, task.reference, looked_at(inputs))
    clicks = truth.clicks(task.ids()) if set(task.prompts) - {"auto", "text", "box", *CONTOUR_KINDS} else {}
    boxes = truth.boxes(task.ids(), task.options, task.head["seed"]) if "box" in task.prompts else {}
    contours = truth.contours(task.prompts, task.ids(), task.options, task.head["seed"])
    rows: list[dict[str, Any]] = []
    joint: dict[str, JointScan] = {}
    volumes: dict[Modality, Volume] = {}
    for number, given in enumerate(inputs):
        head = input_head(task.head, subject, given, task.backbone.takes)
        if not set(given) <= set(subject.scans):
            for kind in task.prompts:
                rows += [unscored(head, name, kind, "modality_absent") for name in task.names]
            continue
        for modality in given:
            if modality not in volumes:
                volumes[modality] = _read(task, subject, modality, truth, scans)
        shown = shown_scan(subject, given, task.reference)
        scored = scored_scan(subject, given, task.reference, task.options.label)
        targets = truth.targets(scored, task.options.score_grids)
        own = {modality: volumes[modality] for modality in given}
        condition = label_condition(shown, scored)
        case = Case(subject, own, volumes[shown].grid, targets, clicks, head, boxes, condition, contours)
        rows += scan_rows(task, case)
        if task.backbone.takes:
            joint[case.column] = JointScan(given, shown, scored)
        # what no later input needs is let go
        later = looked_at(inputs[number + 1 :])
        volumes = {modality: volume for modality, volume in volumes.items() if modality in later}
    if task.save_to is not None:
        # a picture shows what was scored
        told = {name: label for name, label in task.ids().items() if subject.tells(name)}
        write_index(task.save_to, subject, told, joint)
    return rows


def _read(
    task: Task, subject: Subject, modality: Modality, truth: Truth, scans: list[dict[str, str]]
) -> Volume:
    """A scan whose values can be what its units say, noted among those looked at."""
    scan = subject.scans[modality]
    image = read_image(scan.image, subject.id)
    findings = check_intensity(image, scan, subject, task.bad_intensity)
    scans.append(scan_row(subject, modality, image, findings, truth.share(modality)))
    return image
