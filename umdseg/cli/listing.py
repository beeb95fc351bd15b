"""`umdseg list`: what is registered, models with what a user has to know before choosing one."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from umdseg import registry
from umdseg.errors import UserError

if TYPE_CHECKING:
    from umdseg.backbones.card import Card, Intensity, Weights
    from umdseg.backbones.listing import Listing

KINDS = {
    "models": "model",
    "adapters": "adapter",
    "fusion": "fusion",
    "data": "data",
    "prompts": "prompt",
}
COLUMNS = (
    *("model", "family", "parameters", "trained on", "prompts", "output"),
    *("status", "commercial use", "licence", "weights"),
)
TOGETHER = {
    "family, parameters, trained on": slice(1, 4),
    "prompts, output": slice(4, 6),
    "weights": slice(6, 10, 3),
    "commercial use, licence": slice(7, 9),
}
COMMERCIAL = {True: "yes", False: "no", None: "unclear"}
FROM_FOLDER = "as its folder says"


def show(what: str | None, name: str | None = None, *, matrix: bool = False) -> None:
    """Print the names of everything, of one kind, the table of models, or one model's card.

    Args:
        what: a key of `KINDS`, `structures`, or None for everything.
        name: of a model.
        matrix: which method of adaptation goes with which family of models.

    Raises:
        UserError: a name where none is taken, or of no model; a matrix of anything but adapters.
    """
    if matrix:
        if what != "adapters" or name is not None:
            raise UserError("only adapters have a matrix", expected="umdseg list adapters --matrix")
        from umdseg.adapters.matrix import table

        print(table())
        return
    if name is not None and what != "models":
        raise UserError("only models can be shown one by one", expected="umdseg list models NAME")
    if name is not None:
        for field, value in described(name):
            print(f"{field + ':':<16} {value}")
    elif what == "models":
        _table([row(model) for model in registry.names("model")])
    else:
        for title in [what] if what else [*KINDS, "structures"]:
            if what is None:
                print(f"{title}:")
            for entry in structures() if title == "structures" else registry.names(KINDS[title]):
                print(f"  {entry}" if what is None else entry)


def structures() -> list[str]:
    """Canonical names of all known structures."""
    from umdseg.anatomy import structures as known

    return list(known())


def row(name: str) -> tuple[str, ...]:
    """One line of the table of models, in the order of `COLUMNS`; a model that says nothing has dashes."""
    try:
        found = _listing(name)
    except UserError as error:
        # its package is missing; that is no reason not to list the others
        return (name, *("–" for _ in COLUMNS[2:]), error.what)
    if found is None:
        return (name, *("–" for _ in COLUMNS[1:]))
    return (
        name,
        found.family,
        count(found.parameters),
        trained_on(found),
        ", ".join(found.prompts),
        found.output or FROM_FOLDER,
        status(found),
        COMMERCIAL[found.weights.commercial],
        found.weights.licence,
        source(found.weights),
    )


def described(name: str) -> list[tuple[str, str]]:
    """Everything a model's card says, field by field; what is not verified says so.

    Raises:
        UserError: no such model, or its package is not installed.
    """
    found = _listing(name)
    if found is None:
        raise UserError(
            f"model '{name}' says nothing about itself without being built", expected="a `listing`"
        )
    weights = found.weights
    lines = [
        ("model", name),
        ("family", found.family),
        ("parameters", FROM_FOLDER if found.parameters is None else f"{found.parameters:,}"),
        ("trained on", trained_on(found)),
        ("takes", takes(found)),
        ("prompts", ", ".join(found.prompts)),
        ("output", found.output or FROM_FOLDER),
        ("weights", f"{source(weights)}, {weights.file}"),
        ("sha256", weights.sha256 or "not verified"),
        ("status", status(found)),
        ("licence", weights.licence),
        ("commercial use", COMMERCIAL[weights.commercial]),
        ("note", weights.note or "–"),
    ]
    return lines + (_of_card(found.card) if found.card else [("structures", FROM_FOLDER)])


def status(found: Listing) -> str:
    """Whether weights ship with umdseg, are on this machine, can be downloaded, or come only by hand.

    Networks without published weights are trained here, from scratch.
    """
    from umdseg.backbones.download import cached

    if found.card is not None and found.card.scratch:
        return "from scratch"
    if found.weights.source == "package":
        return "shipped"
    if (found.cached() if found.cached else cached(found.weights)) is not None:
        return "cached"
    return "by hand" if found.weights.source is None else "to download"


def source(weights: Weights) -> str:
    """Where the weights come from, in one word or address."""
    return {None: "not published", "package": "umdseg"}.get(weights.source, str(weights.source))


def trained_on(found: Listing) -> str:
    """Modalities the weights have seen; photographs are none, and untrained networks have seen nothing."""
    if found.takes:
        return f"{'+'.join(found.takes)} together"
    return ", ".join(found.trained_on) or ("no scans" if found.card else FROM_FOLDER)


def takes(found: Listing) -> str:
    """Whether the model is given one scan at a time or several of one person together."""
    if found.takes:
        return f"{' and '.join(found.takes)} of one person together"
    return "one scan at a time" if found.card or found.output else FROM_FOLDER


def count(parameters: int | None) -> str:
    """Millions of parameters."""
    return FROM_FOLDER if parameters is None else f"{parameters / 1e6:.1f} M"


def _listing(name: str) -> Listing | None:
    factory = registry.resolve("model", name)
    made: Listing | None = factory.listing() if hasattr(factory, "listing") else None
    return made


def _of_card(card: Card) -> list[tuple[str, str]]:
    size = " × ".join(map(str, card.window))
    spacing = (
        "the scan's own" if card.spacing is None else " × ".join(f"{mm:g}" for mm in card.spacing) + " mm"
    )
    crop = card.crop
    return [
        ("orientation", card.orientation),
        ("spacing", spacing),
        ("window", f"{size} voxels, edges are multiples of {card.divisor}"),
        ("windows", f"overlap {card.overlap:g}, {card.blending} weights"),
        *((f"intensity {modality}", _scale(scale)) for modality, scale in card.intensity.items()),
        ("crop", f"above {crop.above:g}, {crop.stage} scaling, margin {crop.margin}" if crop else "none"),
        ("prompts enter", card.prompt_enters),
        ("adapters at", card.adapter_targets or "–"),
        ("first layer", card.stem or "–"),
        ("free classes", str(len(card.new_rows)) if card.new_rows else "none"),
        ("citation", card.citation),
        (f"structures {len(card.structures)}", _names(card.structures)),
        *((f"{whole} =", " + ".join(parts)) for whole, parts in card.groups.items()),
    ]


def _scale(scale: Intensity) -> str:
    low, high = f"{scale.low:g}", f"{scale.high:g}"
    floor, ceiling = scale.to
    where = " of voxels above 0" if scale.masked else ""
    return {
        "window": f"{low} ... {high} to {floor:g} ... {ceiling:g}",
        "percentile": f"percentiles {low} ... {high}{where} to {floor:g} ... {ceiling:g}",
        "standardise": f"clipped to {low} ... {high}, mean {scale.mean:g}, standard deviation {scale.std:g}",
        "zscore": f"z-score{where}",
        "as_is": "scaled by the model itself",
    }[scale.kind]


def _names(structures: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({index})" for name, index in sorted(structures.items(), key=lambda s: s[1]))


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column(COLUMNS[0], no_wrap=True)
        # ten columns do not fit a screen; what belongs together shares one
        for title in TOGETHER:
            table.add_column(title, overflow="fold")
        for cells in rows:
            table.add_row(cells[0], *(", ".join(cells[place]) for place in TOGETHER.values()))
        Console().print(table)
        return
    # one line per model, for grep; cells hold no two blanks in a row
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    for cells in (COLUMNS, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
