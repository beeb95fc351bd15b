"""The Pareto figure: who is on the front, what is drawn, and that labels can be read."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from umdseg.report.labels import overlaps, place_labels
from umdseg.report.pareto import front, pareto, pareto_figure


def row(
    label: str, parameters: int | None, seconds: float | None, value: float | None, **more: Any
) -> dict[str, Any]:
    gain = {"value": value, "ci": None if value is None else [value - 0.05, value + 0.05]}
    head = {
        "modality": "pet",
        "prompt": "auto",
        "label": label,
        "one_route": parameters,
        "fit_seconds": seconds,
    }
    return {**head, "closure": gain, "won_back": None, **more}


ROWS = [
    row("lora 4", 50_000, 200.0, 0.70),
    row("lora 8", 100_000, 210.0, 0.75),
    row("lora_conv 8", 60_000, 260.0, 0.66),
    row("full", 2_700_000, 400.0, 0.90),
    row("dora 8", 101_000, None, 0.76),
    row("head", 2_000, 120.0, None),
]


def test_front_is_what_nothing_beats() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        # few values, so that ties in either are common
        points = [(float(x), float(y)) for x, y in rng.integers(0, 6, (12, 2))]
        beaten = {
            i
            for i, j in itertools.permutations(range(12), 2)
            if points[j][0] <= points[i][0] and points[j][1] >= points[i][1] and points[j] != points[i]
        }
        found = front(points)
        assert set(found) == set(range(12)) - beaten
        assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def filled(axes: Any) -> set[float]:
    """Costs of the points that are drawn full."""
    points = [line for line in axes.lines if line.get_marker() == "o"]
    return {float(p.get_xdata()[0]) for p in points if p.get_markerfacecolor() == p.get_color()}


def test_two_panels_per_target_with_what_is_known_in_each() -> None:
    rows = [*ROWS, *({**r, "modality": "mr"} for r in ROWS[:2])]
    figure = pareto_figure(rows)
    left, right, below, _ = figure.axes
    assert left.get_xscale() == "log"
    assert filled(left) == {50_000, 100_000, 101_000, 2_700_000}
    assert filled(right) == {200, 210, 400}
    texts = [[t.get_text() for t in axes.texts if t.get_text()] for axes in (left, right, below)]
    assert sorted(texts[0]) == sorted(r["label"] for r in ROWS[:5])
    assert "dora 8" not in texts[1]
    assert sorted(texts[2]) == ["lora 4", "lora 8"]
    assert [axes.get_title("left") for axes in (left, below)] == ["PET", "MR"]
    bars = [line for line in left.lines if list(line.get_ydata()) == pytest.approx([0.65, 0.75])]
    assert list(bars[0].get_xdata()) == [50_000, 50_000]


def test_goal_is_drawn_where_it_is_asked_for_only() -> None:
    def level(goal: float | None) -> list[float]:
        axes = pareto_figure(ROWS, goal=goal).axes[0]
        return [line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]]

    assert level(None) == []
    assert level(0.8) == [0.8]


def test_no_gain_no_figure_and_no_seconds_no_points() -> None:
    assert pareto(ROWS, "won_back") is None
    assert pareto([row("a", 10, 1.0, None)]) is None
    older = pareto_figure([row("a", 10, None, 0.5), row("b", 20, None, 0.6)])
    assert [line for line in older.axes[1].lines if line.get_marker() == "o"] == []
    assert "seconds" in older.axes[1].texts[0].get_text()


def test_won_back_is_drawn_where_it_is_the_gain() -> None:
    rows = [{**r, "won_back": {"value": r["closure"]["value"] / 2, "ci": None}} for r in ROWS[:3]]
    axes = pareto_figure(rows, "won_back").axes[0]
    assert "won back" in axes.get_ylabel()
    heights = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert heights == pytest.approx([0.35, 0.375, 0.33])


def test_image_is_a_png() -> None:
    image = Image.open(io.BytesIO(pareto(ROWS)))
    assert image.format == "PNG"
    assert min(image.size) > 400


def test_labels_of_a_crowd_cover_neither_each_other_nor_the_points() -> None:
    figure = Figure(figsize=(5, 4))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rng = np.random.default_rng(3)
    points = [(float(x), float(y)) for x, y in rng.normal(0.5, 0.05, (14, 2))]
    axes.set(xlim=(0, 1), ylim=(0, 1))
    labels = place_labels(axes, points, [f"lora_conv {n}" for n in range(14)])
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    boxes = np.array([label.get_window_extent(renderer).extents for label in labels])
    shared = overlaps(boxes, boxes)
    assert np.allclose(shared[~np.eye(14, dtype=bool)], 0)
    centres = axes.transData.transform(points)
    assert not ((boxes[:, None, :2] < centres) & (centres < boxes[:, None, 2:])).all(axis=2).any()
    frame = axes.get_window_extent()
    assert (boxes[:, :2] >= [frame.x0, frame.y0]).all()
    assert (boxes[:, 2:] <= [frame.x1, frame.y1]).all()


def test_areas_that_boxes_share() -> None:
    boxes = np.array([[0, 0, 4, 2], [3, 1, 5, 5], [4, 0, 6, 2]], dtype=float)
    assert overlaps(boxes, boxes).tolist() == [[8, 1, 0], [1, 8, 1], [0, 1, 4]]
