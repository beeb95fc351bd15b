"""The model: weights and their terms, prompts, the dataset's structures, and the adapter that goes in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.overrides import TorchFunctionMode

from umdseg import adapters
from umdseg.adapters.routes import routes_of
from umdseg.backbones import Card, build
from umdseg.backbones.base import Backbone
from umdseg.backbones.download import cached, page
from umdseg.config.schema import Settings
from umdseg.data.verdict import Finding, Level
from umdseg.errors import UserError
from umdseg.preflight.check import Check, count
from umdseg.registry import resolve
from umdseg.runs.saved import adapter_folder
from umdseg.vocabulary import Origin

# models up to this size get their weights, to see whether they fit; larger ones would take long
READ_BYTES = 256 << 20
# beginnings of what is said of weights that are at hand
_THERE = ("local", "in the cache", "shipped")
_UNREAD = f"more than {READ_BYTES >> 20} MB, not read here"


def weights(settings: Settings, card: Card) -> Check:
    """Where the weights come from and under which terms; nothing is downloaded."""
    given, told = settings.model.weights, card.weights
    terms = f"{told.licence}, commercial use: {_YES[told.commercial]}"
    if given == "random":
        warning = "random weights: scores mean nothing before training"
        findings = () if settings.run.task == "pretrain" else (Finding("warn", warning, "model.weights"),)
        return Check("weights", "random", findings)
    if given:
        path = Path(given).expanduser()
        if not path.is_file():
            expected = "a .safetensors, .pt or .pth file"
            lost = Finding("refuse", "the weights file does not exist", str(path), expected)
            return Check("weights", "missing", (lost,))
        return Check("weights", f"local file, {path.stat().st_size / 1e6:.0f} MB")
    folder = getattr(settings.model, "folder", None)
    if folder:
        path = Path(folder).expanduser()
        gone = () if path.is_dir() else (Finding("refuse", "the model's folder does not exist", str(path)),)
        return Check("weights", f"local folder; {terms}", gone)
    return _published(settings, card, terms)


def _published(settings: Settings, card: Card, terms: str) -> Check:
    told = card.weights
    if card.scratch:
        findings: tuple[Finding, ...] = ()
        if settings.run.task == "evaluate":
            findings = (Finding("warn", "random weights: scores mean nothing before training", "model.name"),)
        return Check("weights", "none: trained from a random start", findings)
    if told.source is None:
        return Check("weights", "none", (Finding("refuse", "no weights are published", card.name, _OWN),))
    if told.source == "package":
        return Check("weights", f"shipped with umdseg; {terms}")
    return _hub(settings, card, terms)


_YES = {True: "yes", False: "no", None: "disputed between the sources"}
_OWN = "model.weights=FILE or random"


def _hub(settings: Settings, card: Card, terms: str) -> Check:
    told, where = card.weights, page(card.weights)
    findings = []
    if told.commercial is not True and not settings.model.accept_licence:
        what = f"the weights of {told.source} have terms to accept first: {told.licence}"
        expected = "model.accept_licence=true once you have read them, or model.weights=FILE"
        findings.append(Finding("refuse", what, where, expected))
    # a family that downloads by itself knows where it keeps its files
    listing = getattr(resolve("model", settings.model.name), "listing", None)
    own = listing().cached if listing is not None else None
    at_hand = cached(told) if own is None else own()
    if not at_hand:
        offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
        level: Level = "refuse" if offline else "warn"
        what = f"{told.file} is not in the cache" + (" and HF_HUB_OFFLINE is set" if offline else "")
        expected = "a connection when the run starts, or the file by other means: model.weights=FILE"
        findings.append(Finding(level, what, where, expected))
    return Check("weights", f"{'in the cache' if at_hand else 'to be downloaded'}; {terms}", tuple(findings))


def plain(settings: Settings) -> Backbone:
    """The model with whatever lay in memory as weights: its card and its size need no others.

    Raises:
        UserError: no such model, or a package it needs is missing.
    """
    with _NoInitialisation():
        return build(replace(settings.model, weights="random"))


class _NoInitialisation(TorchFunctionMode):
    """Skips `torch.nn.init`, which takes most of the time of building a large network."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))


def with_weights(settings: Settings, backbone: Backbone, terms: Check) -> Backbone:
    """The model with the weights of the run, where they are at hand and not too large to read; else as it is.

    Args:
        settings: the configuration.
        backbone: from `plain`.
        terms: from `weights`.

    Raises:
        UserError: the weights do not fit.
    """
    options, size = settings.model, sum(p.nbytes for p in backbone.parameters())
    at_hand = terms.level != "refuse" and options.weights != "random" and "downloaded" not in terms.numbers
    if not at_hand or size > READ_BYTES:
        return backbone
    # the factory knows where its weights lie: a file, a folder, the package, or nowhere (from scratch)
    return build(options)


def filled(terms: Check, backbone: Backbone) -> Check:
    """The check of the weights with what their file filled; of files too large to read, that they are."""
    if backbone.loaded is not None:
        return Check(terms.name, f"{terms.numbers}; {backbone.loaded.told()}", terms.findings)
    unread = terms.level != "refuse" and terms.numbers.startswith(_THERE)
    return Check(terms.name, f"{terms.numbers}; {_UNREAD}", terms.findings) if unread else terms


def structures(settings: Settings, card: Card, names: Sequence[str], door: str) -> Check:
    """Which structures can be asked for by class, and which prompts remain for the others."""
    unknown = [name for name in names if not card.knows(name)]
    learns = door == "train" and settings.fit.steps > 0 and settings.adapter.name != "none"
    findings = []
    if unknown:
        kept = ", ".join(k for k in settings.prompt.kinds if k != "auto" and k in card.prompts) or "no prompt"
        named = ", ".join(unknown[:6]) + (f", ... ({len(unknown)} in all)" if len(unknown) > 6 else "")
        if door == "train" and learns and len(unknown) > len(card.new_rows):
            what = f"{card.name} has no class rows left for {len(unknown)} new structures"
            findings.append(Finding("refuse", what, "data.structures", f"at most {len(card.new_rows)}"))
        elif not learns:
            what = f"{card.name} does not know {named} by class; {kept} remains for them"
            findings.append(Finding("warn", what, "data.structures", "train.py learns them as new classes"))
    fate = f", {len(unknown)} {'learned as new' if learns else 'unknown to it'}" if unknown else ""
    numbers = f"{count(len(names), 'structure')}: {len(names) - len(unknown)} known by class{fate}"
    return Check("structures", numbers, tuple(findings))


def prompts(settings: Settings, card: Card) -> Check:
    """Prompt kinds and modalities against the card."""
    asked = settings.prompt.kinds
    able = [kind for kind in asked if kind in card.prompts]
    findings = [
        Finding(
            "warn" if able else "refuse",
            f"{card.name} takes no '{kind}' prompts",
            "prompt.kinds",
            f"one of {', '.join(card.prompts)}",
        )
        for kind in asked
        if kind not in card.prompts
    ]
    for modality in settings.data.modalities:
        if modality not in card.intensity:
            what = f"the card of {card.name} says nothing about {modality}"
            expected = f"one of {', '.join(card.intensity)}"
            findings.append(Finding("refuse", what, "data.modalities", expected))
    unseen = [m for m in settings.data.modalities if m not in card.trained_on]
    numbers = ", ".join(asked) + (
        f"; {', '.join(unseen)} not among the weights' modalities" if unseen else ""
    )
    return Check("prompts", numbers, tuple(findings))


def inject(
    settings: Settings, backbone: Backbone, names: Sequence[str], scans: Sequence[Origin], door: str
) -> Check:
    """Put the adapter in as the run would, and say how much it trains.

    Args:
        settings: the configuration.
        backbone: the plain model.
        names: structures asked for.
        scans: where the training scans come from.
        door: `train` or `evaluate`.
    """
    chosen = settings.adapter
    try:
        if door == "evaluate":
            if not chosen.path:
                return Check("adapter", "none")
            if backbone.random_weights:
                return Check("adapter", f"{chosen.name}, saved; not tried (weights not at hand)")
            card = adapters.load_adapter(adapter_folder(chosen.path), backbone)
            return Check("adapter", f"{card.method}, saved, trained on {', '.join(card.modalities)}")
        unknown = [name for name in names if not backbone.knows(name)]
        rows = backbone.add_structures(unknown) if unknown else {}
        adapter = adapters.build(chosen)
        routes = [] if adapter.per is None else routes_of(scans, adapter.per)
        adapter.inject(backbone, rows, routes)
    except (UserError, NotImplementedError) as error:
        found = Finding.of(error) if isinstance(error, UserError) else Finding("refuse", str(error))
        return Check("adapter", f"{chosen.name} does not fit", (found,))
    trained, total = adapter.parameters(backbone)
    if not trained and settings.fit.steps:
        found = Finding("warn", f"adapter={chosen.name} trains nothing", "adapter", "lora or full, to adapt")
        return Check("adapter", f"{chosen.name}: zero-shot evaluation only", (found,))
    each = f", one adapter for each of {', '.join(adapter.routes)}" if adapter.routes else ""
    return Check("adapter", f"{chosen.name}: {trained:,} of {total:,} parameters are trained{each}")
