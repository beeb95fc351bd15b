"""Splits: who is trained on, who is scored, and whether that is enough to say anything."""

from __future__ import annotations

from collections.abc import Iterator

from umdseg.config.schema import Settings
from umdseg.data.dataset import PairedDataset, few_shots, trainable
from umdseg.data.training import check_reference, together
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.preflight.check import Check, count
from umdseg.vocabulary import Subject

# the smallest two-sided p of a Wilcoxon signed-rank test of n pairs is 2 / 2^n; below 6 it is over 0.05
ENOUGH = 6


def splits(
    door: str, settings: Settings, dataset: PairedDataset
) -> tuple[list[Subject], list[Subject], Check]:
    """Training subjects, scored subjects, and what is wrong with them."""
    findings: list[Finding] = []
    trained = _of(dataset, "train", findings) if door == "train" and settings.fit.steps else []
    weights = settings.data.train_modalities
    try:
        trained = few_shots(trained, settings.data.shots, settings.run.seed, weights)
    except UserError as error:
        findings.append(Finding.of(error))
    usable = [s for s in trained if trainable(s, weights)]
    if trained and not usable:
        wanted = ", ".join(m for m, weight in settings.data.train_modalities.items() if weight > 0)
        what = f"none of the {len(trained)} training subjects has a labelled scan to train on ({wanted})"
        findings.append(
            Finding("refuse", what, "data.train_modalities", "modalities that they have, labelled")
        )
    findings += _fused(settings, usable)
    if settings.run.overfit and door == "train":
        scored = usable
    else:
        scored = _of(dataset, settings.data.split if door == "evaluate" else "test", findings)
    scored = scored[: settings.run.limit_subjects]
    findings += [*_modalities(settings, scored), *_enough(settings, scored)]
    numbers = (
        f"{len(usable)} to train on, {len(scored)} scored" if door == "train" else f"{len(scored)} scored"
    )
    return usable, scored, Check("splits", numbers, tuple(findings))


def _fused(settings: Settings, trained: list[Subject]) -> Iterator[Finding]:
    """A reference that nobody who is trained on has."""
    if settings.fusion.name == "none" or not trained:
        return
    try:
        check_reference(settings.data.reference, together(trained, settings.data.train_modalities))
    except UserError as error:
        yield Finding.of(error)


def _of(dataset: PairedDataset, split: str, findings: list[Finding]) -> list[Subject]:
    try:
        return dataset.of(split)
    except UserError as error:
        findings.append(Finding.of(error))
        return []


def _modalities(settings: Settings, scored: list[Subject]) -> Iterator[Finding]:
    for modality in settings.data.modalities if scored else ():
        own = [s.scans[m] for s in scored for m in s.scans if m == modality]
        bare = sum(scan.label is None for scan in own)
        if not own:
            what = f"none of the {len(scored)} scored subjects has a {modality} scan"
            yield Finding("warn", what, "data.modalities", "modalities that they have")
        elif bare:
            what = f"{bare} of {len(own)} scored {modality} scans have no label and cannot be scored"
            yield Finding("warn", what, "", "a label for every scored scan")


def _enough(settings: Settings, scored: list[Subject]) -> Iterator[Finding]:
    wanted = settings.data.modalities
    pairs = sum(sum(m in wanted and s.scans[m].label is not None for m in s.scans) > 1 for s in scored)
    if scored and len(wanted) > 1 and pairs < ENOUGH:
        lowest = (
            f"; a signed-rank test of {count(pairs, 'pair')} cannot go below p = {2 / 2**pairs:.2g}"
            if pairs
            else ""
        )
        what = (
            f"{pairs} of {count(len(scored), 'scored subject')} with labelled scans of two modalities{lowest}"
        )
        expected = f"{ENOUGH} or more for a test at 0.05 and for an interval that says something"
        yield Finding("warn", what, "data.split", expected)
