"""One picture per subject: do its scans and labels lie in one patient space?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.fov import ON_CT, common_mask
from umdseg.data.geometry import Grid, Volume, canonical_grid
from umdseg.data.intensity import verdicts
from umdseg.data.io.nifti import read_image, read_label
from umdseg.data.resampling import resample_image, resample_labels
from umdseg.data.verdict import Level, worst
from umdseg.errors import UserError
from umdseg.files import atomic
from umdseg.vocabulary import MODALITIES, Modality, Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = {"ct": "CT", "pet": "PET", "mr": "MR"}
# Okabe and Ito's palette, told apart by colour-blind readers; then what is left of the distinct ones
_COLOURS = (
    *("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"),
    *("#7f3fbf", "#a6d854", "#8c564b", "#ff9896", "#17becf", "#bcbd22", "#c5b0d5"),
)
_VERDICT: dict[Level, str] = {"pass": "#1a7f37", "warn": "#b35900", "refuse": "#b3001b"}
# axis across the slice -> its name and the letters at the left, right, bottom and top edge
_VIEWS = {1: ("coronal, y", ("R", "L", "I", "S")), 2: ("axial, z", ("R", "L", "P", "A"))}
_PIXELS = 320  # longest edge of a slice


@dataclass(frozen=True)
class _Seen:
    """One scan in the picture, or why there is none."""

    modality: Modality
    title: str
    verdict: Level
    image: Volume | None
    label: Volume | None


def picture(subject: Subject, path: Path, structures: Mapping[str, int]) -> None:
    """Write a PNG with every modality of a subject at the same place, atomically.

    Rows: coronal and axial slice through the centre of the labelled voxels (without labels, of the common
    field of view). Columns: the modalities, and PET over CT (or MR). Contours are the labels of each scan,
    the dashed line is the edge of the field of view that all scans share. Titles give spacing, units and the
    verdict on the values. Nothing is refused: what cannot be read is said in its place.

    Args:
        subject: whose scans.
        path: PNG to write.
        structures: name -> id in the label maps.
    """
    from matplotlib.figure import Figure

    seen = [_see(subject, m) for m in MODALITIES if m in subject.scans]
    grids = {one.modality: one.image.grid for one in seen if one.image is not None}
    readable = Subject(subject.id, {m: subject.scans[m] for m in grids})
    # without a readable scan there is still a picture that says so
    reference = _isotropic(ON_CT.grid(readable, grids)) if grids else Grid((8, 8, 8), np.eye(4))
    centre, ids = _centre(seen, reference, grids), sorted(structures.values())
    fused = _base(grids) if "pet" in grids else None
    columns = len(seen) + (fused is not None)
    heights = [reference.shape[2], reference.shape[1]]
    width, head, foot = 3.0, 1.0, 0.6
    tall = [min(width * h / reference.shape[0], 6.0) for h in heights]
    size = (width * columns + 0.4, sum(tall) + head + foot)
    figure = Figure(figsize=size, facecolor="white")
    panels = figure.subplots(2, columns, squeeze=False, height_ratios=tall)
    for row, axis in enumerate(_VIEWS):
        plane = _plane(reference, axis, centre)
        common = _flat(common_mask(plane, grids.values()), axis)
        for column, one in enumerate(seen):
            _panel(panels[row][column], plane, axis, [one], ids, common)
            if row == 0:
                panels[row][column].set_title(one.title, fontsize=8, color=_VERDICT[one.verdict])
        if fused is not None:
            layers = [one for m in (fused, "pet") for one in seen if one.modality == m]
            _panel(panels[row][-1], plane, axis, layers, [], common)
            if row == 0:
                panels[row][-1].set_title(f"PET over {_NAME[fused]}\n\n", fontsize=8)
        panels[row][0].set_ylabel(f"{_VIEWS[axis][0]} = {centre[axis]:.0f} mm", fontsize=8)
    _legend(figure, seen, structures)
    figure.suptitle(subject.id, fontsize=11, y=1 - 0.1 / size[1], va="top")
    edges = {"left": 0.35 / size[0], "right": 1 - 0.05 / size[0]}
    edges |= {"top": 1 - head / size[1], "bottom": foot / size[1]}
    figure.subplots_adjust(**edges, wspace=0.04, hspace=0.04)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _see(subject: Subject, modality: Modality) -> _Seen:
    scan, name = subject.scans[modality], _NAME[modality]
    try:
        image = read_image(scan.image, subject.id)
    except UserError as error:
        return _Seen(modality, f"{name}\n{_wrapped(error.what)}", "refuse", None, None)
    findings = verdicts(image, modality, scan.units, f"subject {subject.id}")
    verdict, label = worst(findings), None
    told = findings[0].what if findings else "values pass"
    try:
        # another scan's grid is allowed for a label, so none is asked for here
        label = None if scan.label is None else read_label(scan.label, subject=subject.id)
    except UserError as error:
        verdict, told = "refuse", error.what
    spacing = " x ".join(f"{s:.2f}" for s in image.grid.spacing)
    head = f"{name} {scan.tracer_or_sequence or ''}\n{spacing} mm, {scan.units}"
    return _Seen(modality, f"{head}\n{_wrapped(told)}", verdict, image, label)


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 44, max_lines=2))


def _isotropic(grid: Grid) -> Grid:
    """The RAS grid over a scan that the slices are cut from."""
    size = np.array(grid.shape) * np.array(grid.spacing)
    step = max(float(min(grid.spacing)), float(size.max()) / _PIXELS)
    return canonical_grid(grid, (step, step, step))


def _centre(seen: Sequence[_Seen], reference: Grid, grids: Mapping[Modality, Grid]) -> NDArray[np.float64]:
    """Centre (mm) of the labelled voxels of the first scan that has any, else of the common field."""
    for one in seen:
        if one.label is not None and (found := np.argwhere(one.label.array)).size:
            return np.asarray(one.label.grid.to_world(found.astype(float)).mean(axis=0))
    coarse = canonical_grid(reference, (8.0, 8.0, 8.0))
    found = np.argwhere(common_mask(coarse, grids.values()))
    index = found.mean(axis=0) if found.size else (np.array(coarse.shape) - 1) / 2
    return np.asarray(coarse.to_world(index[None])[0])


def _plane(grid: Grid, axis: int, centre: NDArray[np.float64]) -> Grid:
    """The slice of a grid through a place, one voxel thick."""
    index = int(np.clip(np.round(grid.to_index(centre[None])[0][axis]), 0, grid.shape[axis] - 1))
    start, stop = [0, 0, 0], list(grid.shape)
    start[axis], stop[axis] = index, index + 1
    return grid.crop((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _flat(array: NDArray[Any], axis: int) -> NDArray[Any]:
    return np.asarray(array.squeeze(axis=axis).T)


def _base(grids: Mapping[Modality, Grid]) -> Modality | None:
    """What PET is laid over."""
    return next((m for m in ("ct", "mr") if m in grids), None)


def _panel(
    axes: Axes,
    plane: Grid,
    axis: int,
    layers: Sequence[_Seen],
    ids: Sequence[int],
    common: NDArray[np.bool_],
) -> None:
    axes.set_facecolor("black")
    for number, one in enumerate(layers):
        if one.image is None:
            axes.text(0.5, 0.5, "not readable", color="white", ha="center", transform=axes.transAxes)
            continue
        values = _flat(resample_image(one.image, plane, float("nan")), axis)
        low, high, colours = _window(one, values)
        alpha = 0.45 if number else 1.0
        shown = "hot" if number else colours
        axes.imshow(values, cmap=shown, vmin=low, vmax=high, alpha=alpha, origin="lower", aspect="equal")
        if one.label is not None:
            _contours(axes, _flat(resample_labels(one.label, plane), axis), ids)
    if common.any() and not common.all():
        axes.contour(
            common.astype(float), levels=[0.5], colors=["#00e5ff"], linewidths=0.8, linestyles="dashed"
        )
    _frame(axes, axis, common.shape[1])


def _window(one: _Seen, values: NDArray[np.float32]) -> tuple[float, float, str]:
    if one.modality == "ct" and one.verdict != "refuse":
        return -160.0, 240.0, "gray"
    if one.modality == "pet" and one.verdict != "refuse":
        return 0.0, 7.0, "gray_r"
    finite = values[np.isfinite(values)]
    low, high = (float(v) for v in np.percentile(finite, [1, 99.5])) if finite.size else (0.0, 1.0)
    return low, max(high, low + 1e-6), "gray"


def _contours(axes: Axes, labels: NDArray[np.int16], ids: Sequence[int]) -> None:
    for position, number in enumerate(ids):
        mask = labels == number
        if mask.any() and not mask.all():
            colour = _COLOURS[position % len(_COLOURS)]
            axes.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=0.9)


def _frame(axes: Axes, axis: int, columns: int) -> None:
    """Radiological view: the patient's right, where x grows to, is on the left; letters at the edges."""
    axes.set_xlim(columns - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    left, right, bottom, top = _VIEWS[axis][1]
    marks = ((left, 0.03, 0.5), (right, 0.97, 0.5), (bottom, 0.5, 0.04), (top, 0.5, 0.96))
    for letter, x, y in marks:
        box = {"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 1.0}
        place: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(x, y, letter, color="white", fontsize=8, bbox=box, **place)


def _legend(figure: Any, seen: Sequence[_Seen], structures: Mapping[str, int]) -> None:
    from matplotlib.lines import Line2D

    found = {int(i) for one in seen if one.label is not None for i in np.unique(one.label.array)}
    names = sorted(structures, key=lambda name: structures[name])
    lines = [
        Line2D([], [], color=_COLOURS[k % len(_COLOURS)], label=name.replace("_", " "))
        for k, name in enumerate(names)
        if structures[name] in found
    ]
    lines.append(Line2D([], [], color="#00bcd4", linestyle="dashed", label="common field of view"))
    figure.legend(handles=lines, loc="lower center", ncols=7, fontsize=7, frameon=False)
