"""The same slice of one subject in every modality, with reference and prediction contours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg.data.geometry import Grid, Volume, canonical_grid, resample
from umdseg.data.io.nifti import read_image, read_label
from umdseg.evaluation.cases import on_grid
from umdseg.evaluation.inputs import columns_of, in_order
from umdseg.evaluation.options import BASELINES
from umdseg.evaluation.predictions import INDEX, prediction_path
from umdseg.evaluation.summary import main_metric
from umdseg.report import words
from umdseg.report.figures import png
from umdseg.report.words import METRIC, STAGE, number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

REFERENCE, PREDICTION = "#00a651", "#e6007e"
_STAGES = ("zero_shot", "adapted", "supervised")
_MARGIN_MM = 25.0


@dataclass(frozen=True)
class Plane:
    """One slice in patient space.

    Attributes:
        grid: one voxel thick along `axis`.
        axis: 1 (coronal) or 2 (axial).
    """

    grid: Grid
    axis: int

    @property
    def name(self) -> str:
        """`coronal, y = -12 mm` or `axial, z = 340 mm`."""
        kind, letter = ("coronal", "y") if self.axis == 1 else ("axial", "z")
        return f"{kind}, {letter} = {self.grid.affine[self.axis, 3]:.0f} mm"

    def cut(self, volume: Volume, nearest: bool = False) -> NDArray[np.float32]:
        """Values (columns, rows) of a volume on the plane, NaN (images) or 0 (labels) outside it."""
        values = torch.from_numpy(np.ascontiguousarray(volume.array, dtype=np.float32))[None]
        outside = 0.0 if nearest else float("nan")
        moved = resample(values, volume.grid, self.grid, "nearest" if nearest else "linear", outside=outside)
        return np.asarray(moved[0].numpy().squeeze(axis=self.axis), dtype=np.float32)


def overlay(folder: Path, subject: str, cases: pd.DataFrame) -> tuple[bytes, str] | None:
    """Draw one subject: modalities across (scans given together as one, over each other), stages down.

    Args:
        folder: `predictions` of a run folder.
        subject: whose predictions to draw.
        cases: case table, for the score in the corner of each panel and the choice of the prompt.

    Returns:
        PNG and caption, or None when scans or predictions are gone.
    """
    from matplotlib.figure import Figure

    index_path = folder / subject / INDEX
    if not index_path.exists():
        return None
    index = json.loads(index_path.read_text(encoding="utf-8"))
    table = on_grid(cases)
    metric = main_metric(table)
    rows = table[(table["subject"] == subject) & ~table["model"].isin(BASELINES)]
    rows = rows.assign(modality=columns_of(rows))
    prompts = _prompts(rows)
    scans = {m: index["scans"][m] for m in in_order(index["scans"]) if _readable(index["scans"][m])}
    files = {(m, s): prediction_path(folder, subject, m, s, p) for m in scans for s, p in prompts.items()}
    files = {key: path for key, path in files.items() if path.exists()}
    modalities = [m for m in scans if any((m, s) in files for s in _STAGES)]
    stages = [s for s in _STAGES if any((m, s) in files for m in modalities)]
    if not modalities:
        return None
    labels = {m: read_label(scans[m]["label"], subject=subject) for m in modalities}
    ids = list(index["structures"].values())
    plane = choose_plane(labels[modalities[0]], ids)
    width, height = _extent(plane)
    scale = 3.1 / max(width, 0.75 * height)
    figure = Figure(figsize=(scale * width * len(modalities) + 0.3, scale * height * len(stages) + 0.4))
    panels = figure.subplots(len(stages), len(modalities), squeeze=False)
    for column, modality in enumerate(modalities):
        layers = _layers(index["scans"], modality, plane, subject)
        truth = plane.cut(labels[modality], nearest=True)
        for row, stage in enumerate(stages):
            axes = panels[row][column]
            _picture(axes, layers, plane)
            _contours(axes, truth, REFERENCE, plane, ids)
            if (modality, stage) in files:
                found = plane.cut(read_label(files[modality, stage]), nearest=True)
                _contours(axes, found, PREDICTION, plane, ids)
                shown = (rows["modality"] == modality) & (rows["stage"] == stage)
                _corner(axes, rows[shown & (rows["prompt"] == prompts[stage])], metric)
            if row == 0:
                axes.set_title(words.modality(modality), fontsize=11, fontweight="bold")
            if column == 0:
                axes.set_ylabel(_row_name(stage, prompts), fontsize=11)
    figure.subplots_adjust(wspace=0.03, hspace=0.03)
    told = dict.fromkeys(prompts[stage] for stage in stages)
    return png(figure), f"Subject {subject}, {plane.name}, prompt {' and '.join(told)}"


def choose_plane(label: Volume, ids: list[int]) -> Plane:
    """The coronal or axial slice that shows most structures, then most labelled voxels.

    Args:
        label: label map of the reference modality.
        ids: ids of the structures.
    """
    edge = float(min(label.grid.spacing))
    grid = canonical_grid(label.grid, (edge, edge, edge))
    values = torch.from_numpy(label.array.astype(np.float32))[None]
    array = resample(values, label.grid, grid, "nearest", outside=0.0)[0].numpy().astype(np.int32)
    best: tuple[tuple[int, int], int, int] | None = None
    for axis in (1, 2):
        flat = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        shown = sum(((flat == i).any(axis=1).astype(int) for i in ids), np.zeros(len(flat), dtype=int))
        filled = (flat > 0).sum(axis=1)
        place = int(np.lexsort((filled, shown))[-1])
        score = (int(shown[place]), int(filled[place]))
        if best is None or score > best[0]:
            best = (score, axis, place)
    assert best is not None
    _, axis, place = best
    lower, upper = _box(array > 0, int(_MARGIN_MM / edge))
    lower[axis], upper[axis] = place, place + 1
    start, stop = (tuple(int(v) for v in ends) for ends in (lower, upper))
    return Plane(grid.crop(start, stop), axis)  # type: ignore[arg-type]


def _box(mask: NDArray[np.bool_], margin: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    found = np.argwhere(mask)
    if len(found) == 0:
        return np.zeros(3, dtype=np.intp), np.array(mask.shape, dtype=np.intp)
    low = np.maximum(found.min(axis=0) - margin, 0)
    return low, np.minimum(found.max(axis=0) + 1 + margin, mask.shape)


def _prompts(rows: pd.DataFrame) -> dict[str, str]:
    """Per stage `auto`, unless the model could not answer it then (a structure that was new to it)."""
    ok = rows[rows["status"] == "ok"]
    found = {}
    for stage in _STAGES:
        asked = set(ok.loc[ok["stage"] == stage, "prompt"])
        first = ("auto", "point", *sorted(asked))
        found[stage] = next((prompt for prompt in first if prompt in asked), "auto")
    return found


def _row_name(stage: str, prompts: Mapping[str, str]) -> str:
    different = len({prompts[s] for s in ("zero_shot", "adapted")}) > 1
    return f"{STAGE[stage]}, {prompts[stage]}" if different else STAGE[stage]


def _readable(scan: Mapping[str, Any] | None) -> bool:
    return bool(scan and scan["label"] and Path(scan["image"]).exists() and Path(scan["label"]).exists())


def _extent(plane: Plane) -> tuple[float, float]:
    size = np.array(plane.grid.shape) * np.array(plane.grid.spacing)
    width, height = (float(s) for s in np.delete(size, plane.axis))
    return width, height


def _layers(
    scans: Mapping[str, Any], column: str, plane: Plane, subject: str
) -> list[tuple[str, NDArray[np.float32]]]:
    """Modality and slice of the scan shown and, of scans given together, of the others."""
    shown = scans[column]
    chosen = {shown.get("on", column): shown, **{m: scans[m] for m in shown.get("beside", ())}}
    there = {m: scan for m, scan in chosen.items() if Path(scan["image"]).exists()}
    return [(m, plane.cut(read_image(scan["image"], subject))) for m, scan in there.items()]


def _picture(axes: Axes, layers: Sequence[tuple[str, NDArray[np.float32]]], plane: Plane) -> None:
    """The first scan in grey; others given with it as colour over it, the stronger the more opaque."""
    # radiological convention: the patient's right, where x grows to, is on the left of the picture
    width, height = _extent(plane)
    for place, (modality, image) in enumerate(layers):
        low, high = _range(modality, image)
        # radiological PET is black uptake on white
        grey = "gray_r" if modality == "pet" else "gray"
        shown: dict[str, Any] = {"cmap": "hot" if place else grey, "vmin": low, "vmax": high}
        if place:
            strength = (np.nan_to_num(image, nan=low) - low) / (high - low)
            shown["alpha"] = 0.6 * np.clip(strength, 0, 1).T
        axes.imshow(image.T, origin="lower", extent=(0, width, 0, height), **shown)
    axes.set_facecolor("#f2f2f2" if layers[0][0] == "pet" else "black")
    axes.set_xlim(width, 0)
    axes.set_ylim(0, height)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#c8ccd2")


def _range(modality: str, image: NDArray[np.float32]) -> tuple[float, float]:
    """Values shown darkest and brightest."""
    if modality == "ct":
        return -160.0, 240.0
    if modality == "pet":
        return 0.0, 7.0
    seen = image[np.isfinite(image)]
    low, high = (float(v) for v in np.percentile(seen, [1, 99.5])) if seen.size else (0.0, 1.0)
    return low, max(high, low + 1e-6)


def _contours(axes: Axes, labels: NDArray[np.float32], colour: str, plane: Plane, ids: Sequence[int]) -> None:
    """Outlines of the structures that are scored; what the reference does not tell about is not wrong."""
    step = np.delete(np.array(plane.grid.spacing), plane.axis)
    x, y = ((np.arange(n) + 0.5) * s for n, s in zip(labels.shape, step, strict=True))
    for label in np.intersect1d(labels, ids):
        axes.contour(x, y, (labels == label).T.astype(float), levels=[0.5], colors=[colour], linewidths=1.2)


def _corner(axes: Axes, rows: pd.DataFrame, metric: str) -> None:
    scores = rows.loc[rows["status"] == "ok", metric].dropna()
    if len(scores):
        box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 2.0}
        axes.text(
            0.03,
            0.97,
            f"{METRIC[metric]} {number(float(scores.mean()), 2)}",
            transform=axes.transAxes,
            fontsize=9,
            va="top",
            bbox=box,
        )
