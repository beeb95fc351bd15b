"""What the rows of one scan start with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umdseg.data.dataset import PairedDataset
from umdseg.evaluation.inputs import JOINT
from umdseg.vocabulary import MODALITIES, Modality, Subject


def run_head(
    dataset: PairedDataset, seed: int, fold: int | None = None, shots: int | None = None
) -> dict[str, Any]:
    """Columns that all rows of one evaluation share."""
    return {"dataset": dataset.name, "seed": seed, "fold": fold, "shots": shots, "score_grid": "label"}


def scan_head(run: Mapping[str, Any], subject: Subject, modality: Modality) -> dict[str, Any]:
    """Columns that all rows of one scan (or of a scan the subject lacks) share.

    Args:
        run: as `run_head` made it, with or without further columns.
        subject: whose scan.
        modality: which scan.
    """
    return input_head(run, subject, (modality,))


def input_head(
    run: Mapping[str, Any], subject: Subject, given: Sequence[Modality], takes: Sequence[Modality] = ()
) -> dict[str, Any]:
    """Columns that all rows of one input share.

    Args:
        run: as `run_head` made it, with or without further columns.
        subject: whose scans.
        given: the scans the model is given, or asked to be given where the subject lacks one.
        takes: those it takes together; empty for a model of one scan, whose rows have no `subset`.
    """
    scans = [subject.scans[m] for m in given if m in subject.scans]
    return {
        **run,
        "subject": subject.id,
        "patient": subject.patient or subject.id,
        "site": subject.site,
        "split": subject.split,
        "pair": JOINT.join(m for m in MODALITIES if m in subject.scans),
        "modality": JOINT.join(takes or given),
        "subset": JOINT.join(given) if takes else "",
        "tracer": JOINT.join(filter(None, (scan.tracer_or_sequence for scan in scans))),
    }


def unscored(
    head: Mapping[str, Any], structure: str, prompt: str, status: str, condition: str = ""
) -> dict[str, Any]:
    """A row that says why there is no score."""
    told = {"structure": structure, "prompt": prompt, "clicks": 0, "condition": condition, "status": status}
    return {**head, **told}
