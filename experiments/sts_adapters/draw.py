"""The study's figure: scores on the left, differences of the same patients on the right."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"LoRA": "#1f6f8b", "U-Net": "#c1666b", "PET": "#555555", "blind": "#bbbbbb"}
DRAWN = (
    "claim",
    "pair against its parts",
    "left out at test",
    "afterwards, twice the steps",
    "against U-Nets",
)


def draw(result: dict[str, Any]) -> bytes:
    """PNG of result.json's content."""
    rows, differences = result["configurations"], [d for d in result["differences"] if d["role"] in DRAWN]
    figure = Figure(figsize=(15, 0.9 + 0.24 * max(len(rows), len(differences))))
    left, right = figure.subplots(1, 2)
    for y, row in enumerate(rows):
        name = row["configuration"]
        _mark(left, y, row["mean"], row["ci"], COLOURS[name.split(" ")[0].split(",")[0]])
    named = [f"{r['configuration']} | {r['given']} (n={r['n']})" for r in rows]
    _finish(left, named, "Dice (95 % CI over patients)")
    left.set_xlim(0, 1)
    for y, one in enumerate(differences):
        _mark(right, y, one["value"], one["ci"], "#1f6f8b" if one["role"] == "claim" else "#777777")
    right.axvline(0, color="#222222", linewidth=0.8)
    right.axvline(-0.03, color="#c1666b", linewidth=0.8, linestyle=":")
    told = [f"{d['first']} − {d['second']}" for d in differences]
    _finish(right, told, "difference in Dice on the same patients (95 % CI)")
    figure.subplots_adjust(wspace=1.45)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def _mark(axes: Axes, y: int, value: float, ci: list[float] | None, colour: str) -> None:
    if ci is not None:
        axes.plot(ci, [y, y], color=colour, linewidth=2)
    axes.plot([value], [y], "o", color=colour, markersize=5)


def _finish(axes: Axes, names: list[str], title: str) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(title)
    axes.grid(axis="x", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
