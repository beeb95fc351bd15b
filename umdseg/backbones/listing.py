"""What `umdseg list models` shows of a registered model, known without building it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from umdseg.backbones.card import Card, Weights
from umdseg.backbones.options import ModelOptions
from umdseg.registry import resolve
from umdseg.vocabulary import Modality, PromptKind

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True)
class Listing:
    """One row of the list of models.

    Attributes:
        family: the family's name, `vista3d`, `nnunet`, ...
        parameters: of all its networks together; None where only the weights' folder tells.
        weights: source and terms.
        trained_on: modalities the weights have seen; empty where only the folder tells.
        prompts: prompt kinds the model takes.
        output: sigmoid, softmax or mask; empty where only the folder tells.
        card: the whole card; None where it is made from the weights' folder.
        takes: modalities the model takes together; empty: one scan at a time, or only the folder tells.
        cached: the local copy of the weights, None while there is none; where the family downloads by
            itself (otherwise `umdseg.backbones.download.cached` knows).
    """

    family: str
    parameters: int | None
    weights: Weights
    trained_on: tuple[Modality, ...]
    prompts: tuple[PromptKind, ...]
    output: Literal["sigmoid", "softmax", "mask", ""]
    card: Card | None = None
    takes: tuple[Modality, ...] = ()
    cached: Callable[[], Path | None] | None = None


def takes(options: ModelOptions) -> tuple[Modality, ...]:
    """Modalities a model takes together, known before it is built; empty: one at a time, or not known yet.

    Args:
        options: of the model; its factory may have a function `takes` of them.
    """
    told = getattr(resolve("model", options.name), "takes", None)
    return () if told is None else tuple(told(options))


def listed(
    card: Callable[[], Card],
    *,
    family: str,
    parameters: int | None,
    options: type[ModelOptions] | None = None,
) -> Callable[[Factory], Factory]:
    """Decorate a factory so that its model is listed: gives it `listing() -> Listing`.

    Args:
        card: makes the model's card; must be cheap (no network, no optional package, no file).
        family: the family's name.
        parameters: of the network, counted once on the meta device.
        options: becomes the factory's `Options`, where it takes more than `ModelOptions`.
    """

    def listing() -> Listing:
        made = card()
        return Listing(
            family, parameters, made.weights, made.trained_on, made.prompts, made.output, card=made
        )

    def mark(factory: Factory) -> Factory:
        open_ended: Any = factory
        open_ended.listing = listing
        if options is not None:
            open_ended.Options = options
        return factory

    return mark
