"""A fusion on disk: its tensors and what they belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from umdseg import registry
from umdseg.backbones.base import Backbone
from umdseg.backbones.record import check_record, record_of
from umdseg.errors import UserError, unknown
from umdseg.files import atomic_folder, write_json
from umdseg.fusion.base import Fused
from umdseg.fusion.options import FusionOptions
from umdseg.vocabulary import Modality

FILE, WEIGHTS = "umdseg_fusion.json", "fusion.safetensors"


@dataclass(frozen=True)
class FusionCard:
    """The facts saved beside a fusion's weights.

    Attributes:
        kind: registered name.
        base_model: registered name of the backbone.
        base_sha256: `Backbone.state_sha256` of the backbone.
        modalities: one input channel each, in this order.
        reference: the modality that leads where it is there.
        structures: those that late fusion weighs one by one.
        options: of the fusion.
        parameters: number of trained values.
        adapter: hash of the folder of the adapter it was trained with, None without one.
        order: the modalities, who leads first; empty in older files, where the others follow the reference
            as they stand in `modalities` (see `leading`).
        preprocessing: how the model worked in training (see `umdseg.backbones.record`); of older files, which
            do not hold it, the window.
        seen: marks of the images that it was trained or validated on (see `umdseg.data.seen`); empty in older
            files, which do not say.
    """

    kind: str
    base_model: str
    base_sha256: str | None
    modalities: list[Modality]
    reference: str
    structures: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    adapter: str | None = None
    order: list[Modality] = field(default_factory=list)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    @property
    def leading(self) -> list[Modality]:
        """The modalities in the order in which they led in training, also of older files."""
        return self.order or sorted(self.modalities, key=lambda modality: modality != self.reference)

    def chosen(self, folder: Path) -> FusionOptions:
        """The options that the fusion saved in `folder` was made with, defaults where it says none.

        Raises:
            UserError: the card names options that the fusion does not have.
        """
        made: type[FusionOptions] = registry.resolve("fusion", self.kind).Options
        known = {f.name for f in fields(made)} - {"name", "path"}
        foreign = sorted(set(self.options) - known)
        if foreign:
            raise unknown(f"option of fusion '{self.kind}'", foreign[0], known, where=folder)
        return made(name=self.kind, path=str(folder), **self.options)

    @classmethod
    def of(cls, fused: Fused, adapter: str | None = None, seen: Sequence[str] = ()) -> FusionCard:
        """The card of a fusion trained with the adapter of that hash, on images with those marks."""
        return cls(
            kind=fused.kind,
            base_model=fused.card.name,
            base_sha256=fused.inner.state_sha256,
            modalities=list(fused.modalities),
            reference=fused.modalities[fused.order[0]],
            structures=list(getattr(fused, "structures", ())),
            options={k: v for k, v in asdict(fused.options).items() if k not in ("name", "path")},
            parameters=sum(p.numel() for p in fused.parts.parameters()),
            adapter=adapter,
            order=[fused.modalities[column] for column in fused.order],
            preprocessing=record_of(fused),
            seen=list(seen),
        )

    @classmethod
    def read(cls, folder: Path) -> FusionCard:
        """Read the card of a saved fusion.

        Raises:
            UserError: no such folder, no card in it, or a damaged one.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            inner = Path(folder) / "fusion" / FILE
            near = str(inner.parent) if inner.is_file() else None
            raise UserError(
                "no saved fusion there", where=folder, expected=f"a folder with {FILE}", nearest=near
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            # older files hold the window alone
            if "preprocessing" not in values and values.get("window"):
                values["preprocessing"] = {"window": values["window"]}
            return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})
        except (ValueError, TypeError) as error:
            raise UserError(f"the fusion's card is damaged: {error}", where=path) from error


def save_fusion(
    fused: Fused, folder: Path, adapter: str | None = None, seen: Sequence[str] = ()
) -> FusionCard:
    """Write a fusion and its card into `folder`, whole or not at all; `adapter` and `seen` as on the card."""
    from safetensors.torch import save_file

    card = FusionCard.of(fused, adapter, seen)
    with atomic_folder(folder) as new:
        state = {k: v.detach().cpu().contiguous() for k, v in fused.parts.state_dict().items()}
        save_file(state, new / WEIGHTS, metadata={"format": "pt"})
        write_json(new / FILE, asdict(card))
    return card


def load_fusion(folder: Path | str, backbone: Backbone, subsets: bool | None = None) -> Fused:
    """Wrap a backbone in the fusion saved in `folder`.

    Args:
        folder: as `save_fusion` wrote it.
        backbone: plain or adapted, on the weights that the fusion was trained on.
        subsets: score every subset of the modalities; None = as it was saved.

    Raises:
        UserError: not a fusion, damaged, or made for another base or another preprocessing (both named).
    """
    from umdseg.backbones.weights import load_strict, read_state

    folder = Path(folder)
    card = FusionCard.read(folder)
    if card.base_model != backbone.card.name:
        told = f"the fusion was made for model {card.base_model}, not {backbone.card.name}"
        raise UserError(told, where=folder)
    # before the weights: another option makes another network, and says more than a hash
    check_record(card.preprocessing, backbone, "fusion", folder)
    if card.base_sha256 != backbone.state_sha256:
        told = f"the fusion was made for weights {card.base_sha256}, not {backbone.state_sha256}"
        raise UserError(told, where=folder)
    factory: type[Fused] = registry.resolve("fusion", card.kind)
    options = card.chosen(folder)
    options = options if subsets is None else replace(options, subsets=subsets)
    more = {"structures": card.structures} if card.kind == "late" else {}
    fused = factory(backbone, options, card.modalities, card.leading, **more)
    load_strict(fused.parts, read_state(folder / WEIGHTS), where=folder / WEIGHTS)
    return fused
