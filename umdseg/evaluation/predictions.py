"""Predictions on disk: `predictions/<subject>/<modality>__<stage>__<prompt>.nii.gz`.

Of scans given together, `<modality>` is `ct+pet`, or `ct+pet_given_ct` where a model had to do with fewer.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import write_volume
from umdseg.evaluation.cases import on_grid
from umdseg.evaluation.options import BASELINES
from umdseg.evaluation.summary import main_metric
from umdseg.files import write_json
from umdseg.vocabulary import Modality, Subject

if TYPE_CHECKING:
    import pandas as pd

INDEX = "overlays.json"


@dataclass(frozen=True)
class JointScan:
    """Scans a model was given together.

    Attributes:
        given: which.
        shown: whose grid the prediction is saved on.
        scored: whose label it was scored against.
    """

    given: tuple[Modality, ...]
    shown: Modality
    scored: Modality


def prediction_path(folder: Path, subject: str, modality: str, stage: str, prompt: str) -> Path:
    """Where one prediction lies; `modality` as `umdseg.evaluation.inputs.column_of` tells inputs apart."""
    return folder / subject / f"{modality.replace(' ', '_')}__{stage}__{prompt}.nii.gz"


def save_prediction(labels: NDArray[np.int16], grid: Grid, path: Path) -> None:
    """Write a label map (X, Y, Z) with the dataset's ids on the scan's own grid."""
    write_volume(Volume(labels, grid), path)


def write_index(
    folder: Path,
    subject: Subject,
    structures: Mapping[str, int],
    joint: Mapping[str, JointScan] | None = None,
) -> None:
    """Write the subject's `overlays.json`: which scans and labels belong to its predictions.

    Args:
        folder: of the predictions.
        subject: whose.
        structures: name -> id in predictions and labels.
        joint: scans given together, by the name that their predictions bear (`ct+pet`).
    """
    scans: dict[str, dict[str, object]] = {
        modality: {
            "image": str(scan.image.resolve()),
            "label": None if scan.label is None else str(scan.label.resolve()),
            "units": scan.units,
        }
        for modality, scan in subject.scans.items()
    }
    for name, one in (joint or {}).items():
        beside = [m for m in one.given if m != one.shown]
        label = scans[one.scored]["label"]
        scans[name] = {**scans[one.shown], "label": label, "on": one.shown, "beside": beside}
    write_json(
        folder / subject.id / INDEX, {"subject": subject.id, "structures": dict(structures), "scans": scans}
    )


def median_subjects(cases: pd.DataFrame, count: int) -> list[str]:
    """The `count` subjects whose macro score is nearest the median of the model's last stage, then by name.

    A typical subject, chosen by rule: neither the best nor the worst is shown. The score is the Dice, or what
    was computed in its place (see `umdseg.evaluation.summary.main_metric`).
    """
    table = on_grid(cases)
    metric = main_metric(table)
    rows = table[(table["status"] == "ok") & table[metric].notna() & ~table["model"].isin(BASELINES)]
    stages = list(dict.fromkeys(rows["stage"]))
    if not stages or count < 1:
        return []
    # supervised networks beside a model are not what is pictured
    last = next((stage for stage in ("adapted", "zero_shot") if stage in stages), stages[-1])
    means = rows[rows["stage"] == last].groupby("subject")[metric].mean()
    distance = (means - means.median()).abs().round(9)
    return [str(s) for s in sorted(distance.index, key=lambda s: (distance[s], s))[:count]]


def keep_predictions(folder: Path, subjects: list[str]) -> None:
    """Remove the predictions of all other subjects."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and path.name not in subjects:
            shutil.rmtree(path)
