"""How numbers and names are written in reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from umdseg.evaluation.inputs import JOINT, parts_of
from umdseg.metrics.scores import LOWER_IS_BETTER

MODALITY = {"ct": "CT", "pet": "PET", "mr": "MR"}
STAGE = {"zero_shot": "zero-shot", "adapted": "adapted", "supervised": "supervised"}
METRIC = {"dice": "Dice", "nsd": "NSD", "hd95": "HD95 (mm)", "assd": "ASSD (mm)"}
STATUS = {
    "ok": "scored",
    "empty_reference": "the reference holds no voxel of the structure",
    "not_annotated": "the labels of the subject do not tell about the structure",
    "modality_absent": "the subject has no scan of this modality",
    "class_unknown": "the model does not know the structure by class",
    "prompt_unsupported": "the model does not take this kind of prompt",
    "failed": "the model failed",
}
NO_LABEL = "the scan has no label"
# Okabe and Ito's palette keeps them apart for colour-blind readers
COLOUR = {"ct": "#5b6470", "pet": "#d55e00", "mr": "#0072b2"}
TOGETHER_COLOUR = "#009e73"
TOGETHER = (
    "{names}: the model was given these scans of a person together and answered once; the score stands in a "
    "column of its own. A gap is between single scans: what was given one scan alone counts as that scan."
)
MISSING = "–"
WHY_INTENSITY = (
    "The intensity classifier knows one voxel's value and nothing else: per modality and structure it "
    "calls a voxel positive where p(structure | intensity), counted on the training subjects, is above the "
    "threshold with the best Dice there. Of all rules that look at single voxels (up to the binning of "
    "intensities) it has the best Dice pooled over the training voxels; on other subjects, or averaged per "
    "subject, another such rule may score a little higher. A model well above it uses anatomy."
)
RANDOM = (
    "Random weights.",
    "The model was not trained; the numbers only show that the pipeline runs.",
)
STARTED_RANDOM = (
    "Started from random weights.",
    "Zero-shot numbers only show that the pipeline runs; what the adapted rows know was learned in this run.",
)
FROM_SCRATCH = (
    "Trained from scratch.",
    "The network started from random weights; all it knows was learned in training.",
)
EXCESS = (
    "Excess gap = the gap of the model − the gap of supervised networks trained from scratch on these "
    "modalities, of the same subjects and structures: what the target modality costs everybody is taken off."
)
GRIDS = (
    "Grid label: each scan is scored on the grid of its label. Grid common: the same predictions on one grid "
    "per subject, within the field of view that all its scored scans share, so that a millimetre means "
    "the same in every modality."
)
WHY_THRESHOLD = (
    "The PET thresholds call every voxel positive that reaches 30 % or 41 % of the scan's maximum SUV; "
    "with a click only the connected component at the click stays."
)


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash for what is undefined."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def interval(ci: Sequence[float] | None, digits: int = 3) -> str:
    """`[low, high]`, or nothing."""
    return "" if ci is None else f"[{number(ci[0], digits)}, {number(ci[1], digits)}]"


def with_interval(entry: Mapping[str, Any] | None, field: str = "value") -> str:
    """`0.412 [0.331, 0.480]` of an entry of gap.json, or a dash."""
    if entry is None or entry[field] is None:
        return MISSING
    return f"{number(entry[field])} {interval(entry['ci'])}".strip()


def metric(name: str) -> str:
    """`Dice`, or `HD95 (mm), lower is better`: what a mean is of."""
    return f"{METRIC.get(name, name)}{', lower is better' if name in LOWER_IS_BETTER else ''}"


def gap_of(name: str) -> str:
    """`gap in Dice`, or `gap in HD95 (mm), negative where the target is worse`."""
    sign = ", negative where the target is worse" if name in LOWER_IS_BETTER else ""
    return f"gap in {METRIC.get(name, name)}{sign}"


def no_distance(rows: int, name: str) -> str:
    """That rows are missing in means of a distance."""
    verb = "has" if rows == 1 else "have"
    return (
        f"{count(rows, 'row')} with an empty prediction {verb} no {METRIC[name]}, and no part in its means."
    )


def modality(column: str) -> str:
    """`CT`; `CT+PET` for scans given together, `CT+PET given CT` for a part of them."""
    sides = (JOINT.join(MODALITY.get(name, name) for name in side) for side in parts_of(column))
    takes, given = sides
    return takes if takes == given else f"{takes} given {given}"


def colour(column: str) -> str:
    """Of a modality, or of scans given together."""
    return COLOUR.get(column, TOGETHER_COLOUR)


def together_notice(columns: Iterable[str]) -> str:
    """Why scans given together have no gap; empty where there are none."""
    names = [modality(column) for column in columns if column not in MODALITY]
    return TOGETHER.format(names=", ".join(names)) if names else ""


def structure(name: str) -> str:
    """A structure name for people."""
    return name.replace("_", " ")


def meaning(status: str, condition: str = "") -> str:
    """Why a row has no score, in words."""
    return NO_LABEL if condition == "no_label" else STATUS.get(status, status)


def random_notice(stages: Iterable[str]) -> tuple[str, str]:
    """Head and sentence that say a run's weights are random, given the stages of its case table."""
    seen = set(stages)
    return STARTED_RANDOM if "adapted" in seen else FROM_SCRATCH if seen == {"supervised"} else RANDOM


def terms_notice(licence: str, commercial: bool | None) -> str:
    """What the licence of a model's weights says on commercial use, empty where it allows it."""
    if commercial is True:
        return ""
    use = "no commercial use" if commercial is False else "it is unclear whether commercial use is allowed"
    return f"Licence of the weights: {licence}; {use}."


def count(number: int, noun: str) -> str:
    """`1 subject`, `2 subjects`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def people(entry: Mapping[str, Any]) -> str:
    """`8 subjects`, or `8 subjects of 4 patients` where some are of one person, of an entry of gap.json."""
    subjects, patients = count(entry["n_subjects"], "subject"), _fewer_patients(entry)
    return f"{subjects} of {patients}" if patients else subjects


def size(entry: Mapping[str, Any]) -> str:
    """`8 × 13` subjects and structures, or `8 (4 patients) × 13`."""
    patients = f" ({told})" if (told := _fewer_patients(entry)) else ""
    return f"{entry['n_subjects']}{patients} × {entry['n_structures']}"


def _fewer_patients(entry: Mapping[str, Any]) -> str:
    # runs made before patients were counted do not say
    patients = entry.get("n_patients", entry["n_subjects"])
    return "" if patients == entry["n_subjects"] else count(patients, "patient")


def select(entries: Sequence[Mapping[str, Any]], **wanted: str) -> Mapping[str, Any] | None:
    """The first entry of a list of gap.json that matches `wanted`, or None."""
    return next((e for e in entries if all(e.get(k) == v for k, v in wanted.items())), None)


def pairs(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(reference, target, metric, prompt) of all gaps, in order and once each."""
    keys = ("reference", "target", "metric", "prompt")
    return list(dict.fromkeys(tuple(e[k] for k in keys) for e in result["gaps"]))
