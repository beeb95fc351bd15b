"""What a gap costs to close: won back (or closure) against trainable parameters and seconds of fitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from umdseg.report import words
from umdseg.report.figures import clean, png
from umdseg.report.labels import place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
_COSTS = {"one_route": "trainable parameters of one adapter", "fit_seconds": "seconds of fitting"}
_GAINS = {"won_back": "won back of the supervised model", "closure": "closure of the gap"}
_INK = "#333333"


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points nothing beats: no other costs (x) at most as much and gains (y) at least as much.

    Args:
        points: (cost, gain).

    Returns:
        Places in `points`, by cost; of equal points all.
    """
    held = [
        place
        for place, (x, y) in enumerate(points)
        if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
    ]
    return sorted(held, key=lambda place: points[place])


def pareto(rows: Sequence[Row], gain: str = "closure", goal: float | None = None) -> bytes | None:
    """Two panels per input and prompt: gain against parameters of one adapter, and against fit seconds.

    Filled points lie on the front: nothing gives more for less. Bars are 95 % intervals over patients.

    Args:
        rows: of a comparison (`umdseg.runs.comparison.compare`).
        gain: `won_back` or `closure`.
        goal: where to draw a horizontal line.

    Returns:
        PNG, or None where no gain is defined.
    """
    figure = pareto_figure(rows, gain, goal)
    return None if figure is None else png(figure)


def pareto_figure(rows: Sequence[Row], gain: str = "closure", goal: float | None = None) -> Figure | None:
    """The figure of `pareto`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [row for row in rows if row[gain] is not None and row[gain]["value"] is not None]
    heads = list(dict.fromkeys((row["modality"], row["prompt"]) for row in shown))
    if not heads:
        return None
    figure = Figure(figsize=(10.6, 0.5 + 4.4 * len(heads)))
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(heads), 2, squeeze=False, sharey="row")
    figure.subplots_adjust(wspace=0.06, hspace=0.34)
    prompts = len({prompt for _, prompt in heads}) > 1
    drawn: list[tuple[Axes, str, list[Row]]] = []
    for (modality, prompt), pair in zip(heads, panels, strict=True):
        own = [row for row in shown if (row["modality"], row["prompt"]) == (modality, prompt)]
        title = words.modality(modality) + (f", prompt {prompt}" if prompts else "")
        pair[0].set_title(title, fontsize=11, color=words.colour(modality), fontweight="bold", loc="left")
        pair[0].set_ylabel(f"{_GAINS[gain]}\n(95 % CI over patients)")
        for axes, cost in zip(pair, _COSTS, strict=True):
            points = [
                row for row in own if row[cost] is not None and (row[cost] > 0 or cost == "fit_seconds")
            ]
            _panel(axes, points, cost, gain)
            if goal is not None and points:
                axes.axhline(goal, color="#222222", linewidth=0.8, linestyle=(0, (5, 3)))
            drawn.append((axes, cost, points))
    _legend(figure)
    # panels of a row share their limits, so labels come when all points are there
    for axes, cost, points in drawn:
        _label(axes, points, cost, gain, goal)
    return figure


def _panel(axes: Axes, rows: Sequence[Row], cost: str, gain: str) -> None:
    clean(axes, grid="both")
    axes.set_xlabel(_COSTS[cost])
    if not rows:
        axes.set_xticks([])
        told = f"no run here says its {_COSTS[cost]}"
        axes.text(0.5, 0.5, told, transform=axes.transAxes, ha="center", color=_INK, fontsize=9)
        return
    points = [(float(row[cost]), float(row[gain]["value"])) for row in rows]
    if cost == "one_route" or max(x for x, _ in points) > 10 * min(x for x, _ in points) > 0:
        axes.set_xscale("log")
    best = front(points)
    colour = words.colour(rows[0]["modality"])
    axes.step(
        *zip(*(points[p] for p in best), strict=True), where="post", color=colour, alpha=0.35, linewidth=2
    )
    for place, (row, (x, y)) in enumerate(zip(rows, points, strict=True)):
        if row[gain]["ci"] is not None:
            axes.plot([x, x], row[gain]["ci"], color=colour, alpha=0.55, linewidth=1.4, solid_capstyle="butt")
        fill = colour if place in best else "white"
        axes.plot([x], [y], "o", markersize=6.5, color=colour, markerfacecolor=fill, markeredgewidth=1.5)
    axes.margins(x=0.16, y=0.12)


def _label(axes: Axes, rows: Sequence[Row], cost: str, gain: str, goal: float | None) -> None:
    from matplotlib.patheffects import withStroke

    points = [(float(row[cost]), float(row[gain]["value"])) for row in rows]
    lines = [
        ((x, c[0]), (x, c[1])) for row, (x, _) in zip(rows, points, strict=True) if (c := row[gain]["ci"])
    ]
    best = [points[place] for place in front(points)]
    for (x, y), (after, higher) in pairwise(best):
        lines += [((x, y), (after, y)), ((after, y), (after, higher))]
    if goal is not None:
        low, high = axes.get_xlim()
        lines.append(((low, goal), (high, goal)))
    halo = [withStroke(linewidth=2, foreground="white")]
    place_labels(axes, points, [row["label"] for row in rows], lines, color=_INK, path_effects=halo)


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"linestyle": "", "marker": "o", "color": _INK, "markersize": 7}
    told = {_INK: "nothing gives more for less", "white": "something does"}
    handles = [Line2D([], [], markerfacecolor=fill, label=label, **style) for fill, label in told.items()]
    # a fixed distance in inches above the panels, whatever the height of the figure
    place = (figure.subplotpars.right, figure.subplotpars.top + 0.05 / figure.get_figheight())
    figure.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=place,
        ncols=2,
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
    )
