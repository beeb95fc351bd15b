"""What an adapter must be told about itself: base, method, structures, preprocessing, versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import umdseg
from umdseg.backbones.base import Backbone
from umdseg.backbones.record import record_of
from umdseg.errors import UserError
from umdseg.files import atomic_folder, write_json

FILE = "umdseg_adapter.json"


@dataclass(frozen=True)
class AdapterCard:
    """The facts saved beside an adapter's weights.

    Attributes:
        base_model: registered name of the base.
        base_sha256: `Backbone.state_sha256` of the base: its tensors, whatever file they came in.
        method: registered name of the adapter.
        options: its options.
        structures: trained structure -> class index; None of a group of structures, and of a model that is
            not asked by class.
        new_structures: the learned ones among them -> class row.
        modalities: trained on.
        per: modality, tracer or site where that chooses among several adapters, else empty.
        routes: modalities, tracers or sites with an adapter of their own; empty = one adapter for all.
        preprocessing: how the model worked in training, its options among it (see
            `umdseg.backbones.record`); in older files spacing (mm) and window (voxels) alone.
        trainable: trained parameters.
        total: parameters of the base.
        versions: of the packages that matter for loading.
        combined: how it was made of others (see `umdseg.adapters.combine`), empty where it was trained.
        parts: those others: folder, weight, hash and modalities of each.
        seen: marks of the images that it was trained or validated on (see `umdseg.data.seen`); empty in older
            files, which do not say.
    """

    base_model: str
    base_sha256: str | None
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    structures: dict[str, int | None] = field(default_factory=dict)
    new_structures: dict[str, int] = field(default_factory=dict)
    modalities: list[str] = field(default_factory=list)
    per: str = ""
    routes: list[str] = field(default_factory=list)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    trainable: int = 0
    total: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    combined: str = ""
    parts: list[dict[str, Any]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    @classmethod
    def describe(
        cls,
        backbone: Backbone,
        structures: Sequence[str] = (),
        modalities: Sequence[str] = (),
        seen: Sequence[str] = (),
    ) -> AdapterCard:
        """The card of the adapter that `backbone` carries."""
        adapter, card = backbone.adapter, backbone.card
        trainable, total = adapter.parameters(backbone)
        options = {k: v for k, v in asdict(adapter.options).items() if k not in ("name", "path")}
        return cls(
            base_model=card.name,
            base_sha256=backbone.state_sha256,
            method=adapter.method,
            options=options,
            structures={name: _row(backbone, name) for name in structures},
            new_structures=dict(backbone.new_structures),
            modalities=list(modalities),
            per=adapter.per or "",
            routes=list(adapter.routes),
            preprocessing=record_of(backbone),
            trainable=trainable,
            total=total,
            versions=_versions(),
            seen=list(seen),
        )

    @classmethod
    def read(cls, folder: Path) -> AdapterCard:
        """Read the card of a saved adapter.

        Raises:
            UserError: no such folder, no card in it, or a damaged one.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            inner = Path(folder) / "adapter" / FILE
            raise UserError(
                "no saved adapter there",
                where=folder,
                expected=f"a folder with {FILE}",
                nearest=str(inner.parent) if inner.is_file() else None,
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})
        except (ValueError, TypeError) as error:
            raise UserError(f"the adapter's card is damaged: {error}", where=path) from error

    def write(self, folder: Path, weights: Callable[[Path], None]) -> None:
        """Write card and weights to a temporary sibling, then put it in place of `folder`."""
        with atomic_folder(folder) as new:
            weights(new)
            write_json(new / FILE, asdict(self))


def _row(backbone: Backbone, structure: str) -> int | None:
    # what is asked by clicks or boxes alone has no classes
    without = structure in backbone.card.groups or "auto" not in backbone.card.prompts
    return None if without else backbone.index(structure)


def _versions() -> dict[str, str]:
    found = {"umdseg": umdseg.__version__}
    for package in ("torch", "monai", "peft"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
