"""Which method of adaptation goes with which family of models, and why not where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from umdseg import registry
from umdseg.backbones.base import Backbone
from umdseg.backbones.card import Card
from umdseg.errors import UserError

# why a method that needs it does not go with models that lack it
REASONS = {
    "logits": "the model gives finished masks, not logits to train on",
    "targets": "the model's card names no layers that take an adapter",
    "slices": "the model sees volumes whole, there are no slices to connect",
    "head": "the model's card names no last layer",
    "prompts": "classes, clicks or boxes have no embeddings of their own in the network",
}
YES, NO, OWN = "yes", "–", "card"


@dataclass(frozen=True)
class Traits:
    """What of a model decides which methods go; None = the user's own card says.

    Attributes:
        logits: it gives logits (not finished masks).
        targets: its card names layers that take an adapter.
        slices: it sees slices one by one.
        head: it has a last layer of its own.
        prompts: what is asked for has embeddings of its own.
    """

    logits: bool
    targets: bool | None
    slices: bool
    head: bool | None
    prompts: bool | None

    @classmethod
    def of(cls, card: Card) -> Traits:
        """Of one model."""
        names = bool(card.adapter_targets), card.slicewise, bool(card.head), bool(card.prompt_parameters)
        return cls(card.output != "mask", *names)


# families whose cards are made from the weights' folder, or written by the user
BY_FOLDER: Mapping[str, Traits] = {
    "nnunet": Traits(True, True, False, True, False),
    "nninteractive": Traits(False, True, False, False, False),
    "voxtell": Traits(True, True, False, False, False),
    "torch_module": Traits(True, None, False, None, None),
}


def applicable(method: str, model: Backbone | Card | Traits, *, targets: str | None = None) -> str:
    """Why a method does not go with a model; empty where it does.

    Args:
        method: registered name of an adapter.
        model: a model, its card, or what of it matters.
        targets: the user's own pattern of layer names, which stands in for the card's.

    Raises:
        UserError: no such method.
    """
    card = model.card if isinstance(model, Backbone) else model
    traits = Traits.of(card) if isinstance(card, Card) else card
    for need in needs(method):
        if getattr(traits, need) is False and not (targets and need in ("targets", "head")):
            return REASONS[need]
    return ""


def needs(method: str) -> tuple[str, ...]:
    """What of a model a method needs, by the names of `Traits`."""
    found: tuple[str, ...] = registry.resolve("adapter", method).needs
    return found


def check(method: str, backbone: Backbone, targets: str | None = None) -> None:
    """Refuse a method that does not go with a model.

    Raises:
        UserError: with the reason, and the methods that go.
    """
    reason = applicable(method, backbone, targets=targets)
    if reason:
        others = [name for name in registry.names("adapter") if not applicable(name, backbone)]
        raise UserError(
            f"adapter '{method}' does not go with model {backbone.card.name}: {reason}",
            where="adapter",
            expected=f"one of {', '.join(others)}",
        )


def families() -> dict[str, set[Traits]]:
    """Family -> what its registered models are like; models whose package is missing are left out."""
    found: dict[str, set[Traits]] = {}
    for name in registry.names("model"):
        try:
            factory: Any = registry.resolve("model", name)
        except UserError:
            continue
        if not hasattr(factory, "listing"):
            continue
        listing = factory.listing()
        traits = Traits.of(listing.card) if listing.card else BY_FOLDER.get(listing.family)
        if traits is not None:
            found.setdefault(listing.family, set()).add(traits)
    return found


def cell(method: str, models: set[Traits]) -> str:
    """`yes`, `–` for no, or `card` where the user's own card decides."""
    wanted = needs(method)
    if any(applicable(method, one) for one in models):
        return NO
    open_ended = any(getattr(one, need) is None for one in models for need in wanted)
    return OWN if open_ended else YES


def table() -> str:
    """All methods against all families as a Markdown table, with the reasons below."""
    known = dict(sorted(families().items()))
    methods = registry.names("adapter")
    cells = [["method", *known], *([m, *(cell(m, traits) for traits in known.values())] for m in methods)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rows.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([*rows, "", *_reasons(known, methods)])


def _reasons(known: Mapping[str, set[Traits]], methods: list[str]) -> list[str]:
    """One line per reason: the families and methods it stands for."""
    lines = []
    for need, reason in REASONS.items():
        lacking = [name for name, models in known.items() if any(getattr(m, need) is False for m in models)]
        wanting = [method for method in methods if need in needs(method)]
        # with finished masks no method goes, whatever else the family lacks
        if need != "logits":
            lacking = [name for name in lacking if all(one.logits for one in known[name])]
        if lacking and wanting:
            what = "all but none" if need == "logits" else ", ".join(wanting)
            lines.append(f"- {', '.join(lacking)} / {what}: {reason}")
    if any(cell(method, models) == OWN for method in methods for models in known.values()):
        lines.append(f"- {OWN}: as the user's own model card says (adapter_targets, head, prompt_parameters)")
    return lines
