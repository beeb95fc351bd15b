"""What a model is given at once, one scan or several of one person, and how its rows are named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from umdseg.backbones.base import Backbone
from umdseg.data.fov import Reference
from umdseg.errors import UserError
from umdseg.evaluation.options import OWN
from umdseg.fusion.base import Fused
from umdseg.fusion.presence import subsets
from umdseg.vocabulary import MODALITIES, Modality, Subject

if TYPE_CHECKING:
    import pandas as pd

JOINT = "+"
_GIVEN = " given "


def inputs_of(backbone: Backbone, modalities: Sequence[Modality]) -> list[tuple[Modality, ...]]:
    """What is asked of a model per subject: each scan alone, or all scans it takes together.

    Of a fused model every subset of its modalities that are looked at (2^M - 1), if its options say so.

    Args:
        backbone: the model.
        modalities: scans looked at; those a model of several scans does not take are left out.

    Raises:
        UserError: a modality that the model takes together with others is not among them.
    """
    if not backbone.takes:
        return [(modality,) for modality in modalities]
    if isinstance(backbone, Fused):
        held = [modality for modality in backbone.takes if modality in modalities]
        return subsets(held) if backbone.options.subsets else [tuple(held)] if held else []
    missing = [modality for modality in backbone.takes if modality not in modalities]
    if missing:
        raise UserError(
            f"model {backbone.card.name} takes {' and '.join(backbone.takes)} of one person together, "
            f"without {' and '.join(missing)} it cannot be asked",
            where="data.modalities",
            expected=f"[{','.join(backbone.takes)}], or more",
        )
    return [backbone.takes]


def looked_at(inputs: Iterable[Sequence[Modality]]) -> tuple[Modality, ...]:
    """The scans that take part in any of the inputs, each once."""
    return tuple(dict.fromkeys(modality for given in inputs for modality in given))


def shown_scan(subject: Subject, given: Sequence[Modality], reference: Reference) -> Modality:
    """The scan of an input whose grid its prediction is saved on: the reference among those given."""
    part = replace(subject, scans={m: subject.scans[m] for m in given})
    return reference.modality(part)


def scored_scan(
    subject: Subject, given: Sequence[Modality], reference: Reference, label: str = OWN
) -> Modality:
    """The scan whose label an input is scored against: of those given that have one, the reference.

    Where no scan has a label it is the reference all the same.

    Args:
        subject: whose scans.
        given: of the input.
        reference: policy of the reference.
        label: a modality whose label comes first where the subject has it, given or not.
    """
    first = next((m for m, scan in subject.scans.items() if m == label and scan.label is not None), None)
    if first is not None:
        return first
    labelled = [m for m in given if subject.scans[m].label is not None]
    return shown_scan(subject, labelled or given, reference)


def label_condition(shown: Modality, scored: Modality) -> str:
    """What the case table says of an input scored against the label of a scan it is not shown on."""
    return "" if scored == shown else f"label_from_{scored}"


def column_of(modality: str, subset: str = "") -> str:
    """What a score was made from, in one text: `pet`, `ct+pet`, `ct+pet given ct` for a part of the input."""
    return modality if subset in ("", modality) else f"{modality}{_GIVEN}{subset}"


def columns_of(cases: pd.DataFrame) -> pd.Series:
    """`column_of` every row of a case table."""
    import pandas as pd

    own = cases["modality"]
    subsets = cases["subset"].fillna("") if "subset" in cases else [""] * len(cases)
    told = [column_of(str(m), str(s)) for m, s in zip(own, subsets, strict=True)]
    return pd.Series(told, index=own.index, dtype=own.dtype)


def in_order(columns: Iterable[str]) -> list[str]:
    """Columns once each: ct, pet, mr, then what was given together, in order of appearance."""
    place: dict[str, int] = {modality: number for number, modality in enumerate(MODALITIES)}
    return sorted(dict.fromkeys(columns), key=lambda column: place.get(column, len(place)))


def parts_of(column: str) -> tuple[list[str], list[str]]:
    """The modalities a model takes, and those it was given."""
    takes, _, given = column.partition(_GIVEN)
    return takes.split(JOINT), (given or takes).split(JOINT)


def as_single(cases: pd.DataFrame) -> pd.DataFrame:
    """The rows of one scan each, under the name of that scan.

    A fused model that is given one scan only is compared with the base model on that scan: what it forgot,
    what it won. Where a stage has rows of a model of one scan, those count. Rows of several scans given
    together are left out.
    """
    alone = cases["modality"].isin(MODALITIES)
    if "subset" in cases:
        stages = cases["stage"] if "stage" in cases else cases["subset"].map(lambda _: "")
        part = cases["subset"].isin(MODALITIES) & ~alone.groupby(stages).transform("any")
        named = cases["modality"].where(alone, cases["subset"])
        return cases.assign(modality=named.astype(cases["modality"].dtype))[alone | part]
    return cases[alone]
