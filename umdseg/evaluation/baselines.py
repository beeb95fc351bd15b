"""Trivial competitors: what a model must beat before its score means anything."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain, product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.dataset import PairedDataset
from umdseg.data.fov import ON_CT, Reference
from umdseg.data.geometry import Volume
from umdseg.data.io.nifti import read_image
from umdseg.data.masks import mask_on
from umdseg.evaluation.cases import case_table
from umdseg.evaluation.inputs import label_condition, scored_scan
from umdseg.evaluation.intensity import IntensityClassifier, fit_intensity, intensity_bins
from umdseg.evaluation.options import EvaluationOptions
from umdseg.evaluation.references import Click
from umdseg.evaluation.rows import run_head, scan_head
from umdseg.evaluation.targets import Target, Truth
from umdseg.progress import track
from umdseg.vocabulary import MODALITIES, Modality, Subject

if TYPE_CHECKING:
    import pandas as pd


def threshold_mask(
    suv: NDArray[Any],
    share: float,
    seed: tuple[int, int, int] | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> NDArray[np.bool_]:
    """Voxels at or above a share of the scan's maximum SUV.

    Args:
        suv: (X, Y, Z).
        share: 0.41 is the EANM's choice for solid tumours (Boellaard et al., EJNMMI 2015).
        seed: voxel index of a click; only the 26-connected component there stays, or the nearest
            one where the click lies below the threshold (a necrotic core, say).
        spacing: voxel edge lengths in millimetres, for what is nearest.
    """
    from scipy import ndimage

    # a scan without uptake has no maximum to take a share of
    mask = (suv >= share * float(suv.max())) & (suv > 0)
    if seed is None or not mask.any():
        return mask
    labelled, _ = ndimage.label(mask, np.ones((3, 3, 3), dtype=int))
    voxels = np.argwhere(mask)
    distance = (((voxels - np.array(seed)) * np.array(spacing)) ** 2).sum(axis=1)
    chosen = labelled[tuple(voxels[int(distance.argmin())])]
    return np.asarray(labelled == chosen)


def evaluate_baselines(
    dataset: PairedDataset,
    train: Sequence[Subject],
    subjects: Sequence[Subject],
    *,
    options: EvaluationOptions,
    modalities: Sequence[Modality] = MODALITIES,
    structures: Sequence[str] | None = None,
    prompts: Sequence[str] = ("auto",),
    seed: int = 0,
    fold: int | None = None,
    shots: int | None = None,
    reference: Reference = ON_CT,
    progress: bool = True,
) -> pd.DataFrame:
    """Case table of the baselines named in `options.baselines`.

    `intensity` has stage `supervised`; `pet_threshold_30|41` learns nothing, has stage `zero_shot`,
    and scores the structure `tumour` on PET only: the component of the click for prompt `point`,
    everything above the threshold for `auto`. A structure that a subject's labels do not tell about is
    `not_annotated` and asked of nobody.

    Raises:
        UserError: unknown baseline, or a file of a subject is missing or broken.
    """
    options.validate()
    names = dataset.select(structures)
    classifier = None
    if "intensity" in options.baselines:
        classifier = fit_intensity(dataset, train, modalities, names, progress)
    thresholds = [b for b in options.baselines if b.startswith("pet_threshold_")]
    run = {**run_head(dataset, seed, fold, shots), "adapter": "none", "fusion": "none"}
    clicked = ["tumour"] if thresholds and "point" in prompts and "tumour" in names else []
    rows: list[dict[str, Any]] = []
    for subject in track(subjects, "evaluate baselines", "subject", progress) if options.baselines else ():
        truth = Truth.read(subject, dataset, reference, modalities)
        clicks = truth.clicks({n: dataset.structures[n] for n in clicked})
        for modality in modalities:
            if modality not in truth.labels:
                continue
            head = scan_head(run, subject, modality)
            image = read_image(subject.scans[modality].image, subject.id)
            scored = scored_scan(subject, [modality], reference, options.label)
            told = label_condition(modality, scored)
            targets = truth.targets(scored, options.score_grids)
            answers: list[Iterator[dict[str, Any]]] = []
            if classifier is not None:
                answers.append(_by_intensity(classifier, image, modality, subject, names))
            if modality == "pet" and "tumour" in names:
                answers.append(_by_threshold(thresholds, image, subject, prompts, clicks.get("tumour")))
            for answer in chain(*answers):
                answer["condition"] = "; ".join(filter(None, [told, answer.get("condition", "")]))
                rows += [{**head, **row} for row in _scored(answer, dataset, image, targets, options)]
    return case_table(rows)


def _scored(
    answer: dict[str, Any],
    dataset: PairedDataset,
    image: Volume,
    targets: Sequence[Target],
    options: EvaluationOptions,
) -> Iterator[dict[str, Any]]:
    """One row per score grid of a mask on the scan's grid, or of a status."""
    mask = answer.pop("mask", None)
    for target in targets:
        row = {**answer, "score_grid": target.name}
        if mask is not None:
            moved = mask_on(mask, image.grid, target.grid)
            row |= target.scores(dataset.structures[answer["structure"]], moved, options)
        yield row


def _by_intensity(
    classifier: IntensityClassifier,
    image: Volume,
    modality: Modality,
    subject: Subject,
    names: Sequence[str],
) -> Iterator[dict[str, Any]]:
    start = time.perf_counter()
    bins = intensity_bins(image.array, modality)
    shared = time.perf_counter() - start
    for name in names:
        row = {"model": "intensity", "stage": "supervised", "prompt": "auto", "clicks": 0, "structure": name}
        if not subject.tells(name):
            yield {**row, "status": "not_annotated"}
            continue
        start = time.perf_counter()
        mask = classifier.predict(bins, modality, name)
        told = {"status": "class_unknown"} if mask is None else {"mask": mask}
        yield {**row, **told, "seconds": shared + time.perf_counter() - start}


def _by_threshold(
    thresholds: Sequence[str],
    image: Volume,
    subject: Subject,
    prompts: Sequence[str],
    click: Click | None,
) -> Iterator[dict[str, Any]]:
    for name, prompt in product(thresholds, [p for p in ("auto", "point") if p in prompts]):
        share = int(name.rsplit("_", 1)[1]) / 100
        row = {"model": name, "stage": "zero_shot", "structure": "tumour", "prompt": prompt, "clicks": 0}
        if not subject.tells("tumour"):
            yield {**row, "status": "not_annotated"}
        elif prompt == "auto":
            yield {**row, "mask": threshold_mask(image.array, share)}
        elif click is None:
            yield {**row, "status": "empty_reference"}
        else:
            index = np.round(image.grid.to_index(np.array([click.point]))[0]).astype(int)
            seed = (int(index[0]), int(index[1]), int(index[2]))
            mask = threshold_mask(image.array, share, seed, image.grid.spacing)
            yield {**row, "clicks": 1, "condition": click.condition, "mask": mask}
