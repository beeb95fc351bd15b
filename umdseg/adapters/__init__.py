"""Adapters: identity at start, base frozen, saved alone, merged, removable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from umdseg import registry
from umdseg.adapters.base import Adapter, AdapterOptions, RoutedOptions
from umdseg.adapters.card import AdapterCard

# imported at once: as a lazy attribute it would be hidden by its own module of that name
from umdseg.adapters.combine import combine
from umdseg.adapters.merging import merged
from umdseg.backbones.base import Backbone
from umdseg.backbones.record import check_record
from umdseg.errors import UserError

__all__ = [
    "Adapter",
    "AdapterCard",
    "AdapterOptions",
    "RoutedOptions",
    "build",
    "combine",
    "disable",
    "load_adapter",
    "merge",
    "merged",
    "unload",
]


def build(options: AdapterOptions) -> Adapter:
    """The adapter its options name."""
    adapter: Adapter = registry.resolve("adapter", options.name)(options)
    return adapter


def load_adapter(folder: Path | str, backbone: Backbone) -> AdapterCard:
    """Inject the adapter saved in `folder`, with its learned structures, and return its card.

    Raises:
        UserError: not an adapter, damaged, or made for another base or another preprocessing (both named).
    """
    folder = Path(folder)
    card = AdapterCard.read(folder)
    _check_base(card, backbone, folder)
    factory: type[Adapter] = registry.resolve("adapter", card.method)
    known = {f.name for f in fields(factory.Options)}
    foreign = sorted(set(card.options) - known)
    if foreign:
        raise UserError(f"adapter '{card.method}' has no option '{foreign[0]}'", where=folder)
    rows = sorted(card.new_structures, key=lambda name: card.new_structures[name])
    got = backbone.add_structures(rows) if rows else {}
    if got != card.new_structures:
        raise UserError(
            "the adapter's class rows are taken by other structures",
            where=folder,
            expected=f"{card.new_structures}, not {got}",
        )
    adapter = factory(factory.Options(name=card.method, path=str(folder), **card.options))
    adapter.inject(backbone, card.new_structures, card.routes)
    adapter.read(folder, backbone)
    return card


def merge(backbone: Backbone, route: str | None = None) -> None:
    """Fold the injected adapter into the base weights (nothing happens on a plain model).

    Args:
        backbone: the adapted model.
        route: whose adapter, where there is one per modality, tracer or site.

    Raises:
        UserError: there are several adapters, and `route` names none of them.
    """
    if backbone.adapter is not None:
        backbone.adapter.merge(backbone, route)


def unload(backbone: Backbone) -> None:
    """Take the injected adapter out again (nothing happens on a plain model)."""
    if backbone.adapter is not None:
        backbone.adapter.unload(backbone)


@contextmanager
def disable(backbone: Backbone) -> Iterator[None]:
    """Inside the block the backbone is the base model exactly as before."""
    if backbone.adapter is None:
        yield
    else:
        with backbone.adapter.disable(backbone):
            yield


def _check_base(card: AdapterCard, backbone: Backbone, folder: Path) -> None:
    if card.base_model != backbone.card.name:
        raise UserError(
            f"the adapter was made for model '{card.base_model}', not '{backbone.card.name}'",
            where=folder,
            expected=f"model={card.base_model}",
        )
    # before the weights: another option makes another network, and says more than a hash
    check_record(card.preprocessing, backbone, "adapter", folder)
    if card.base_sha256 != backbone.state_sha256:
        raise UserError(
            f"the adapter was made for other weights of {card.base_model}",
            where=folder,
            expected=f"weights with state hash {card.base_sha256}, not {backbone.state_sha256}",
        )
