"""Figures of a case table, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umdseg.evaluation.inputs import in_order
from umdseg.evaluation.summary import MACRO, structures_of
from umdseg.report import words
from umdseg.report.words import COLOUR, MODALITY, STAGE, structure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STAGES = ("zero_shot", "adapted")


def png(figure: Figure, dpi: int = 150) -> bytes:
    """Render a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def gap_forest(entries: Sequence[Mapping[str, Any]], metric: str = "dice") -> bytes | None:
    """Forest plot of the gaps before and after adaptation with their intervals.

    Args:
        entries: `gaps` of gap.json.
        metric: which metric's gaps.

    Returns:
        PNG, or None when no gap of this metric is defined.
    """
    from matplotlib.figure import Figure

    shown = [e for e in entries if e["metric"] == metric and e["gap"] is not None]
    if not shown:
        return None
    groups = list(dict.fromkeys((e["prompt"], e["reference"], e["target"]) for e in shown))
    figure = Figure(figsize=(7.2, 0.9 + 0.62 * len(groups)))
    axes = figure.add_subplot()
    for row, group in enumerate(groups):
        for entry in (e for e in shown if (e["prompt"], e["reference"], e["target"]) == group):
            _interval(axes, entry, row)
    axes.axvline(0, color="#222222", linewidth=0.8)
    labels = [f"{MODALITY[r]} – {MODALITY[t]}, {p}" for p, r, t in groups]
    axes.set_yticks(range(len(groups)), labels)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlabel(f"{words.gap_of(metric)} (95 % CI over patients)")
    clean(axes, grid="x")
    _stage_legend(figure, [s for s in STAGE if any(e["stage"] == s for e in shown)])
    return png(figure)


def _interval(axes: Axes, entry: Mapping[str, Any], row: int) -> None:
    stage, colour = entry["stage"], COLOUR[entry["target"]]
    y = row + {"zero_shot": -0.13, "adapted": 0.13}.get(stage, 0.0)
    if entry["ci"] is not None:
        axes.plot(entry["ci"], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
    fill = "white" if stage == "zero_shot" else colour
    axes.plot(
        [entry["gap"]], [y], "o", markersize=7.5, color=colour, markerfacecolor=fill, markeredgewidth=1.8
    )


def organ_dots(summary: pd.DataFrame, prompt: str = "auto", metric: str = "dice") -> bytes | None:
    """Mean score per structure, zero-shot (hollow) and adapted (full), one panel per modality.

    Scans given together have a panel of their own.

    Args:
        summary: from `umdseg.evaluation.summarise`, without baselines.
        prompt: which prompt's rows.
        metric: what the summary is of, for the axis.

    Returns:
        PNG, or None when there is nothing to show.
    """
    from matplotlib.figure import Figure

    rows = summary[(summary["prompt"] == prompt) & (summary["structure"] != MACRO)]
    modalities = in_order(rows["modality"])
    names = structures_of(rows)
    if not modalities:
        return None
    figure = Figure(figsize=(2.1 + 2.3 * len(modalities), 0.95 + 0.29 * len(names)))
    panels = figure.subplots(1, len(modalities), sharey=True, squeeze=False)[0]
    for axes, modality in zip(panels, modalities, strict=True):
        _dots(axes, rows[rows["modality"] == modality], names, words.colour(modality))
        title = words.modality(modality)
        axes.set_title(title, fontsize=11, color=words.colour(modality), fontweight="bold")
        # panels are narrow
        axes.set_xlabel(f"mean {words.metric(metric)}".replace(", ", "\n"))
        if metric in ("dice", "nsd"):
            axes.set_xlim(-0.04, 1.04)
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        clean(axes, grid="both")
    panels[0].set_yticks(range(len(names)), [structure(n) for n in names])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    _stage_legend(figure, [s for s in STAGE if (rows["stage"] == s).any()])
    figure.subplots_adjust(wspace=0.08)
    return png(figure)


def _dots(axes: Axes, rows: pd.DataFrame, names: Sequence[str], colour: str) -> None:
    for y, name in enumerate(names):
        part = rows[rows["structure"] == name].set_index("stage")["mean"]
        values = [float(part[s]) for s in _STAGES if s in part.index]
        axes.plot(values, [y] * len(values), color=colour, alpha=0.35, linewidth=2)
        for stage in (s for s in STAGE if s in part.index):
            fill = "white" if stage == "zero_shot" else colour
            marker: dict[str, Any] = {"color": colour, "markerfacecolor": fill, "markeredgewidth": 1.5}
            axes.plot([float(part[stage])], [y], "o", markersize=6.5, **marker)


def clean(axes: Axes, grid: str) -> None:
    """Take the frame off and put a pale grid (x, y or both) behind what is drawn."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis=grid, color="#e3e6ea", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _stage_legend(figure: Figure, stages: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"linestyle": "", "marker": "o", "color": "#333333", "markersize": 7}
    handles = [
        Line2D([], [], markerfacecolor="white" if s == "zero_shot" else "#333333", label=STAGE[s], **style)
        for s in stages
    ]
    # a fixed distance in inches above the panels, whatever the height of the figure
    place = (figure.subplotpars.right, figure.subplotpars.top + 0.28 / figure.get_figheight())
    figure.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=place,
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
    )
