"""Several saved adapters -> one: averages, sums and differences, as an adapter folder of its own."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from umdseg.adapters import sums
from umdseg.adapters.card import FILE, AdapterCard
from umdseg.backbones.record import differences
from umdseg.errors import UserError, unknown
from umdseg.files import sha256_file, write_json

How = Literal["exact", "parameters"]
HOW: tuple[str, ...] = ("exact", "parameters")
# methods whose change of the base is a sum that can be stored again
EXACT: dict[str, sums.Sum] = {
    **dict.fromkeys(("lora", "lora_conv"), sums.low_rank),
    **dict.fromkeys(("bitfit", "norm", "head", "prompt", "none", "full"), sums.stored),
    "ia3": sums.factors_of_one,
}
# of these the stored tensors themselves are the base's, moved: only means of them mean anything
_ABSOLUTE = ("full", "none")
_FILES = ("adapter_model.safetensors", "adapter.safetensors", "model.safetensors")
_PEFT = "adapter_config.json"


@dataclass(frozen=True)
class Part:
    """One adapter that goes into a combination.

    Attributes:
        folder: where its weights are.
        card: of the saved adapter it is (a route of).
        route: which of its adapters, empty where it has one.
        weights: its file.
    """

    folder: Path
    card: AdapterCard
    route: str
    weights: Path

    @classmethod
    def read(cls, given: Path | str) -> Part:
        """A saved adapter, or one of the routes of one (`FOLDER/pet`).

        Raises:
            UserError: no adapter there, several where one is needed, or no file of weights.
        """
        folder = Path(given).expanduser()
        route = ""
        if not (folder / FILE).is_file() and (folder.parent / FILE).is_file():
            card, route = AdapterCard.read(folder.parent), folder.name
            if route not in card.routes:
                raise unknown("route of the adapter", route, card.routes, where=folder.parent)
        else:
            card = AdapterCard.read(folder)
            if card.routes:
                raise UserError(
                    f"the adapter has one for each of {', '.join(card.routes)}",
                    where=folder,
                    expected=f"one of them, such as {folder / card.routes[0]}",
                )
        weights = next((folder / name for name in _FILES if (folder / name).is_file()), None)
        if weights is None:
            raise UserError("the adapter has no file of weights", where=folder, expected=" or ".join(_FILES))
        return cls(folder, card, route, weights)

    def state(self) -> dict[str, torch.Tensor]:
        """Its tensors.

        Raises:
            UserError: the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.weights)
        except SafetensorError as error:
            raise UserError(f"the adapter's weights are damaged: {error}", where=self.weights) from error


def combine(
    folders: Sequence[Path | str],
    weights: Sequence[float],
    into: Path | str,
    how: How = "exact",
) -> AdapterCard:
    """Write the weighted sum of saved adapters of one method on one base.

    `exact`: the result changes the base's weights by the weighted sum of what the parts change them by. For
    LoRA and lora_conv their factors stand side by side, so ranks add up: averaging factors would not average
    their products. Where weights add up to 1 it is an average; 1 and 1 a sum; 1 and -1 a difference; -1 alone
    a negation. `parameters`: the weighted mean of the stored tensors, which keeps the rank; for LoRA and for
    methods that are no sums (dora, bottleneck, depth) an approximation.

    Args:
        folders: saved adapters, or single routes of routed ones (`RUN/adapter/pet`).
        weights: one per folder.
        into: new folder; an adapter in it is replaced.
        how: exact or parameters.

    Returns:
        The new adapter's card; its `parts` say what it was made of.

    Raises:
        UserError: other bases, methods, structures or options, weights that the method cannot take, a damaged
            file.
    """
    _check_weights(folders, weights, how)
    parts = [Part.read(folder) for folder in folders]
    first = parts[0].card
    for part in parts[1:]:
        _check_alike(parts[0], part, how)
    _check_sum(first, weights, how)
    states = [part.state() for part in parts]
    _check_tensors(parts, states, how)
    scales = [_scale(part.card) for part in parts]
    rule = EXACT[first.method] if how == "exact" else sums.stored
    state = rule(states, weights, scales)
    card = _card(parts, weights, how, state)
    _check_rank(parts, states, card, state)

    def write(folder: Path) -> None:
        from safetensors.torch import save_file

        save_file(state, folder / parts[0].weights.name, metadata={"format": "pt"})
        _write_config(parts[0], card, folder)

    card.write(Path(into).expanduser(), write)
    return card


def _check_weights(folders: Sequence[Path | str], weights: Sequence[float], how: str) -> None:
    if how not in HOW:
        raise unknown("way of combining", how, HOW)
    if not folders or len(folders) != len(weights):
        expected = "one weight per adapter"
        raise UserError(f"{len(weights)} weights for {len(folders)} adapters", expected=expected)
    if not all(math.isfinite(w) for w in weights) or not any(weights):
        raise UserError(f"weights {list(weights)}", expected="finite numbers, not all 0")


def _check_alike(one: Part, other: Part, how: str) -> None:
    """Refuse parts that cannot be summed, naming what differs."""
    a, b = one.card, other.card
    # ranks may differ where factors stand side by side
    free = {
        "per",
        *(("rank", "alpha", "dropout") if how == "exact" and a.method in ("lora", "lora_conv") else ()),
    }
    facts: list[tuple[str, Any, Any]] = [
        ("base model", a.base_model, b.base_model),
        ("base weights", a.base_sha256, b.base_sha256),
        ("method", a.method, b.method),
        ("structures", sorted(a.structures), sorted(b.structures)),
        ("learned structures", a.new_structures, b.new_structures),
    ]
    # of earlier versions' records, what both hold
    both = {key: value for key, value in a.preprocessing.items() if key in b.preprocessing}
    facts += differences(both, b.preprocessing)
    names = sorted((set(a.options) | set(b.options)) - free)
    facts += [(f"option {key}", a.options.get(key), b.options.get(key)) for key in names]
    for what, mine, theirs in facts:
        if mine != theirs:
            raise UserError(
                f"the adapters differ in their {what}: {mine} and {theirs}",
                where=f"{one.folder}, {other.folder}",
                expected="adapters of one method on one base, trained on the same structures",
            )


def _check_sum(card: AdapterCard, weights: Sequence[float], how: str) -> None:
    if how == "exact" and card.method not in EXACT:
        raise UserError(
            f"what '{card.method}' does to the base is no sum, so that adapters of it have none",
            where="how",
            expected="how=parameters (--how parameters), which averages its tensors; or another method",
        )
    absolute = how == "parameters" or card.method in _ABSOLUTE or card.new_structures
    if absolute and abs(sum(weights) - 1) > 1e-6:
        why = "their stored tensors" if how == "parameters" else f"'{card.method}'"
        why = "rows of learned structures" if card.new_structures else why
        raise UserError(
            f"weights that add up to {sum(weights):g}",
            where="weights",
            expected=f"weights that add up to 1: only averages of {why} mean anything",
        )


def _check_tensors(parts: Sequence[Part], states: Sequence[dict[str, torch.Tensor]], how: str) -> None:
    shapes = how == "parameters" or parts[0].card.method not in ("lora", "lora_conv")
    for part, state in zip(parts[1:], states[1:], strict=True):
        odd = sorted(set(state) ^ set(states[0]))
        odd += [k for k in states[0] if shapes and not odd and state[k].shape != states[0][k].shape]
        if odd:
            raise UserError(
                f"the adapters hold different tensors ({len(odd)} differ, first: {odd[0]})",
                where=f"{parts[0].weights}, {part.weights}",
                expected="adapters made with the same options",
            )


def _scale(card: AdapterCard) -> float:
    """What an update is multiplied by where it is used."""
    rank, alpha = card.options.get("rank"), card.options.get("alpha")
    return float(alpha) / float(rank) if rank and alpha else 1.0


def _card(
    parts: Sequence[Part], weights: Sequence[float], how: str, state: dict[str, torch.Tensor]
) -> AdapterCard:
    cards = [part.card for part in parts]
    first = cards[0]
    options = {**first.options, **({"per": None} if "per" in first.options else {})}
    trainable = [card.trainable // max(len(card.routes), 1) for card in cards]
    total = trainable[0]
    if how == "exact" and first.method in ("lora", "lora_conv"):
        rank = sum(int(card.options["rank"]) for card in cards)
        # scales have gone into the factors
        options |= {"rank": rank, "alpha": rank}
        shared = sum(value.numel() for key, value in state.items() if sums.is_shared(key, state))
        total = sum(trainable) - (len(cards) - 1) * shared
    told = [
        {
            "folder": part.folder.name if not part.route else f"{part.folder.parent.name}/{part.route}",
            "weight": float(weight),
            "sha256": sha256_file(part.weights),
            "modalities": part.card.modalities,
            **({"route": part.route} if part.route else {}),
        }
        for part, weight in zip(parts, weights, strict=True)
    ]
    modalities = list(dict.fromkeys(m for card in cards for m in card.modalities))
    return replace(
        first,
        options=options,
        modalities=modalities,
        preprocessing={key: value for card in reversed(cards) for key, value in card.preprocessing.items()},
        per="",
        routes=[],
        trainable=total,
        parts=told,
        combined=how,
        seen=sorted({mark for card in cards for mark in card.seen}),
    )


def _check_rank(
    parts: Sequence[Part],
    states: Sequence[dict[str, torch.Tensor]],
    card: AdapterCard,
    state: dict[str, torch.Tensor],
) -> None:
    """Of grouped convolutions lora_conv rounds the rank up to the groups: the sum must be what it expects."""
    if card.method != "lora_conv" or card.combined != "exact":
        return
    for key in (key for key in state if key.endswith("up") and sums.is_factor(key, state)):
        groups = states[0][f"{key.removesuffix('up')}down"].shape[0] // states[0][key].shape[1]
        if state[key].shape[1] != math.ceil(card.options["rank"] / groups):
            raise UserError(
                f"ranks that the {groups} groups of {key.removesuffix('.up')} do not divide",
                where=", ".join(str(part.folder) for part in parts),
                expected=f"ranks that are multiples of {groups}, or how=parameters",
            )


def _write_config(part: Part, card: AdapterCard, folder: Path) -> None:
    """Peft's configuration beside the weights, its rank that of the sum."""
    source = part.folder / _PEFT
    if not source.is_file():
        return
    config = json.loads(source.read_text(encoding="utf-8"))
    if "rank" in card.options and "r" in config:
        config |= {"r": card.options["rank"], "lora_alpha": card.options["alpha"]}
        write_json(folder / _PEFT, config)
    else:
        shutil.copyfile(source, folder / _PEFT)
