"""Labels beside the points of a figure where they cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

Floats = NDArray[np.float64]
# distances of a label from its point, in points (1/72 inch), and directions
_DISTANCES = (7.0, 12.0, 19.0, 28.0, 38.0, 50.0, 64.0, 80.0)
_ANGLES = np.deg2rad(np.concatenate([[30, -30, 150, -150, 0, 180], np.arange(15, 360, 30)]))
# a label farther than this gets a line to its point
_BESIDE = 12.0
_ROUNDS, _SAMPLES, _MARGIN = 4, 8, 1.5
# a line across something looks worse than its area
_LINE = 3.0


@dataclass(frozen=True)
class _Places:
    """The possible places of one label, in pixels.

    Attributes:
        middles: (P, 2) of the text.
        boxes: (P, 4) of the text with a margin.
        dots: (P, S, 4) small boxes along the line to the point; without area where there is no line.
        ends: (P, 2) where that line meets the text.
        costs: (P,) of the place itself: distance, and what lies outside the axes.
        lines: (P,) whether there is a line.
    """

    middles: Floats
    boxes: Floats
    dots: Floats
    ends: Floats
    costs: Floats
    lines: NDArray[np.bool_]


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
    size: float = 8,
    **style: Any,
) -> list[Annotation]:
    """Write a text beside each point; one that must go far gets a thin line to its point.

    Each label takes the place that covers least of points, lines and other labels, the nearest of equals;
    then each once more, given all others, until none moves. Limits of the axes must be final.

    Args:
        axes: of a figure whose canvas can be measured (Agg).
        points: in data coordinates.
        texts: one per point.
        lines: horizontal and vertical ones that labels keep off, (x, y) to (x, y) in data coordinates.
        size: of the font, points.
        style: of the texts.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    centres = [np.asarray(axes.transData.transform(point), dtype=float) for point in points]
    ends = [np.sort(axes.transData.transform(line), axis=0).ravel() for line in lines]
    fixed = np.array([_around(c, 4.5 * scale) for c in centres] + [_thick(end, scale) for end in ends])
    labels = [
        axes.annotate(text, point, (0, 0), textcoords="offset points", fontsize=size, **style)
        for text, point in zip(texts, points, strict=True)
    ]
    frame = axes.get_window_extent()
    inside = np.array([frame.x0, frame.y0, frame.x1, frame.y1])
    choices = [
        _places(centre, _size(label, figure), inside, scale)
        for centre, label in zip(centres, labels, strict=True)
    ]
    for label, centre, places, at in zip(labels, centres, choices, _settle(choices, fixed), strict=True):
        offset = (places.middles[at] - centre) / scale
        label.set_position((float(offset[0]), float(offset[1])))
        label.set(ha="center", va="center")
        if places.lines[at]:
            _lead(axes, label, (places.ends[at] - centre) / scale)
    return labels


def overlaps(boxes: Floats, others: Floats) -> Floats:
    """(n, m) areas that boxes (n, 4) share with others (m, 4), each x0, y0, x1, y1."""
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = np.maximum(high - np.maximum(boxes[:, None, :2], others[None, :, :2]), 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1], dtype=float)


def _settle(choices: Sequence[_Places], fixed: Floats) -> list[int]:
    """Which place each label takes; all choose again, given the others, until none moves."""
    alone = [places.costs + _covered(places, fixed) for places in choices]
    chosen: dict[int, int] = {}
    for _ in range(_ROUNDS):
        before = dict(chosen)
        for number, places in enumerate(choices):
            others = [(choices[other], at) for other, at in chosen.items() if other != number]
            cost = alone[number]
            if others:
                texts = np.array([other.boxes[at] for other, at in others])
                dots = np.concatenate([other.dots[at] for other, at in others])
                cost = cost + _covered(places, texts) + _LINE * _covered(places, dots)
            chosen[number] = int(cost.argmin())
        if chosen == before:
            break
    return [chosen[number] for number in range(len(choices))]


def _covered(places: _Places, others: Floats) -> Floats:
    """(P,) what each place covers of others (m, 4) with its text and, worse, with its line."""
    count, samples, _ = places.dots.shape
    crossed = overlaps(places.dots.reshape(-1, 4), others).reshape(count, samples, -1).sum(axis=(1, 2))
    return np.asarray(overlaps(places.boxes, others).sum(axis=1) + _LINE * crossed, dtype=float)


def _places(centre: Floats, size: Floats, inside: Floats, scale: float) -> _Places:
    distance, angle = (axis.ravel() for axis in np.meshgrid(_DISTANCES, _ANGLES, indexing="ij"))
    way = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # the edge of the label, not its middle, keeps the distance
    shift = way * distance[:, None] * scale + np.sign(np.round(way, 6)) * size / 2
    middles = centre + shift
    boxes = np.concatenate([middles - size / 2 - _MARGIN, middles + size / 2 + _MARGIN], axis=1)
    area = float(np.prod(size + 2 * _MARGIN))
    outside = np.maximum(area - overlaps(boxes, inside[None])[:, 0], 0.0)
    lines = distance > _BESIDE
    # the share of the way to the middle at which the text begins
    with np.errstate(divide="ignore"):
        share = 1 - np.min(size / 2 / np.abs(shift), axis=1)
    start = np.minimum(6 * scale / np.hypot(*shift.T), share)
    steps = np.linspace(start, share, _SAMPLES, axis=1)[..., None]
    dots = centre + steps * shift[:, None]
    half = np.where(lines, scale, 0.0)[:, None, None]
    around = np.concatenate([dots - half, dots + half], axis=2)
    return _Places(middles, boxes, around, dots[:, -1], distance + 10 * outside, lines)


def _lead(axes: Axes, label: Annotation, end: Floats) -> None:
    """A line from a label's point to `end`, its offset in points."""
    style = {"arrowstyle": "-", "color": "#9aa1a9", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
    where = (float(end[0]), float(end[1]))
    axes.annotate("", label.xy, where, textcoords="offset points", arrowprops=style)


def _size(label: Annotation, figure: Any) -> Floats:
    extent = label.get_window_extent(figure.canvas.get_renderer())
    return np.array([extent.width, extent.height])


def _around(point: Floats, half: float) -> Floats:
    return np.concatenate([point - half, point + half])


def _thick(end: Floats, scale: float) -> Floats:
    return np.concatenate([end[:2] - scale, end[2:] + scale])
