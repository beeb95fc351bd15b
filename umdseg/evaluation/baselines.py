"""Trivial competitors: what a model must beat before its score means anything."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.dataset import PairedDataset
from umdseg.data.fov import ON_CT, Reference
from umdseg.data.geometry import Volume
from umdseg.data.io.nifti import read_image
from umdseg.evaluation.cases import case_table
from umdseg.evaluation.inputs import label_condition, scored_scan
from umdseg.evaluation.intensity import IntensityClassifier, fit_intensity
from umdseg.evaluation.options import EvaluationOptions
from umdseg.evaluation.references import Click, mask_on
from umdseg.evaluation.rows import run_head, scan_head
from umdseg.evaluation.targets import Truth
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

    mask = suv >= share * float(suv.max())
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
    everything above the threshold for `auto`.

    Raises:
        UserError: unknown baseline, or a file of a subject is missing or broken.
    """
    options.validate()
    names = dataset.select(structures)
    classifier = None
    if "intensity" in options.baselines:
        classifier = fit_intensity(dataset, train, modalities, names, progress)
    run = {**run_head(dataset, seed, fold, shots), "adapter": "none", "fusion": "none"}
    rows: list[dict[str, Any]] = []
    for subject in track(subjects, "evaluate baselines", "subject", progress) if options.baselines else ():
        truth = Truth.read(subject, dataset, reference, modalities)
        clicks = truth.clicks({n: dataset.structures[n] for n in names})
        for modality in modalities:
            if modality not in truth.labels:
                continue
            head = scan_head(run, subject, modality)
            image = read_image(subject.scans[modality].image, subject.id)
            scored = scored_scan(subject, [modality], reference, options.label)
            told = label_condition(modality, scored)
            targets = truth.targets(scored, options.score_grids)
            for predicted in _predictions(
                classifier, options.baselines, image, modality, names, clicks, prompts
            ):
                name, mask = predicted.pop("structure"), predicted.pop("mask")
                head["condition"] = "; ".join(filter(None, [told, predicted.pop("condition", "")]))
                for target in targets:
                    row = {**head, **predicted, "structure": name, "score_grid": target.name}
                    if mask is None:
                        rows.append({**row, "status": "class_unknown"})
                        continue
                    moved = mask_on(mask, image.grid, target.grid)
                    rows.append({**row, **target.scores(dataset.structures[name], moved, options)})
    return case_table(rows)


def _predictions(
    classifier: IntensityClassifier | None,
    baselines: Sequence[str],
    image: Volume,
    modality: Modality,
    names: Sequence[str],
    clicks: Mapping[str, Click],
    prompts: Sequence[str],
) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    if classifier is not None:
        for name in names:
            start = time.perf_counter()
            mask = classifier.predict(image, modality, name)
            head = {"model": "intensity", "stage": "supervised", "prompt": "auto", "clicks": 0}
            out.append({**head, "structure": name, "mask": mask, "seconds": time.perf_counter() - start})
    shares = [b for b in baselines if b.startswith("pet_threshold_")]
    if modality != "pet" or "tumour" not in names:
        return out
    for baseline in shares:
        share = int(baseline.rsplit("_", 1)[1]) / 100
        head = {"model": baseline, "stage": "zero_shot", "structure": "tumour"}
        if "auto" in prompts:
            out.append({**head, "prompt": "auto", "clicks": 0, "mask": threshold_mask(image.array, share)})
        if "point" in prompts and "tumour" in clicks:
            index = np.round(image.grid.to_index(np.array([clicks["tumour"].point]))[0]).astype(int)
            seed = (int(index[0]), int(index[1]), int(index[2]))
            mask = threshold_mask(image.array, share, seed, image.grid.spacing)
            condition = clicks["tumour"].condition
            out.append({**head, "prompt": "point", "clicks": 1, "condition": condition, "mask": mask})
    return out
