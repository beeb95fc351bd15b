"""Who trains, who validates, who is tested: dealt by patient or by site, balanced and seeded.

What holds, whatever the seed:

- The unit is the patient (`Subject.patient`, else the subject) or the site. A unit is never divided.
- The order in which subjects are listed does not matter: units are ordered by a hash of seed and name.
- Folds by patient differ by at most one patient, also among the patients with the same modalities and
  tracer, who are dealt one after the other, those with most modalities first; so every fold tests pairs.
  Folds by site are filled largest site first, each into the fold that holds fewest subjects.
- Balance comes before permanence: adding a patient may move others to another fold. Nobody moves when
  the same patients are listed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from umdseg.data.dataset import PairedDataset
from umdseg.data.options import DataOptions
from umdseg.errors import UserError
from umdseg.seeds import derive
from umdseg.vocabulary import Subject

Units = Mapping[str, Sequence[Subject]]


def deal(dataset: PairedDataset, options: DataOptions, seed: int) -> PairedDataset:
    """The dataset with every subject in the split that the options ask for.

    Without `folds` the subjects keep the split their dataset gives them. A patient or site alone is
    tested: there is nobody to train on.

    Raises:
        UserError: options that make no sense, no site to split by, a fold that would hold nobody, or one
            patient in two splits.
    """
    options.validate_split()
    subjects = dataset.subjects
    if options.folds is not None:
        subjects = _tested(dataset.name, subjects, options, seed)
    if options.val_share:
        subjects = _validated(dataset.name, subjects, options, seed)
    refuse_leaks(subjects)
    return replace(dataset, subjects=subjects)


def refuse_leaks(subjects: Sequence[Subject]) -> None:
    """Refuse subjects of one patient in two splits.

    Raises:
        UserError: naming both subjects.
    """
    first: dict[str, Subject] = {}
    for subject in subjects:
        known = first.setdefault(subject.patient or subject.id, subject) if subject.split else subject
        if known.split != subject.split:
            raise UserError(
                f"subjects {known.id} and {subject.id} are one patient, in splits '{known.split}' and "
                f"'{subject.split}'",
                expected="all studies of a patient in one split; data.folds=5 deals them so",
            )


def folds_of(
    name: str, subjects: Sequence[Subject], folds: int, seed: int, by: str = "subject"
) -> list[Units]:
    """Deal subjects into folds.

    Args:
        name: of the dataset; part of the hash.
        subjects: whom.
        folds: how many parts.
        seed: the run's seed.
        by: subject (patient) or site.

    Returns:
        Unit -> its subjects, for every fold; units in the order in which they were dealt.
    """
    units = _units(subjects, by)
    dealt: list[dict[str, Sequence[Subject]]] = [{} for _ in range(folds)]
    if by == "site":
        for unit in sorted(units, key=lambda u: (-len(units[u]), derive(seed, name, u))):
            smallest = min(dealt, key=lambda fold: sum(map(len, fold.values())))
            smallest[unit] = units[unit]
        return list(dealt)
    order = sorted(units, key=lambda u: (*_kind(units[u]), derive(seed, name, u)))
    for i, unit in enumerate(order):
        dealt[i % folds][unit] = units[unit]
    return list(dealt)


def _kind(subjects: Sequence[Subject]) -> tuple[int, list[str], list[str]]:
    """What makes patients alike: modalities (most first) and PET tracers."""
    held = sorted({m for s in subjects for m in s.scans})
    pets = [s.scans["pet"] for s in subjects if "pet" in s.scans]
    return -len(held), list(held), sorted({(scan.tracer_or_sequence or "").upper() for scan in pets})


def _units(subjects: Sequence[Subject], by: str) -> dict[str, list[Subject]]:
    units: dict[str, list[Subject]] = {}
    homeless = [s.id for s in subjects if by == "site" and not s.site]
    if homeless:
        raise UserError(
            f"{len(homeless)} of {len(subjects)} subjects have no site, such as {homeless[0]}",
            where="data.split_by",
            expected="a site for every subject (column `site` of a manifest), or data.split_by=subject",
        )
    for subject in subjects:
        unit = subject.site if by == "site" else subject.patient or subject.id
        units.setdefault(unit, []).append(subject)
    return units


def _tested(name: str, subjects: Sequence[Subject], options: DataOptions, seed: int) -> tuple[Subject, ...]:
    assert options.folds is not None
    dealt = folds_of(name, subjects, options.folds, seed, options.split_by)
    count = sum(map(len, dealt))
    if count == 1 and options.split_by == "subject":
        return tuple(replace(s, split="test") for s in subjects)
    if not dealt[options.fold]:
        kind = "sites" if options.split_by == "site" else "patients"
        raise UserError(
            f"fold {options.fold} of {options.folds} holds nobody: there are {count} {kind}",
            where="data.fold",
            expected=f"a fold from 0 to {count - 1}, or fewer folds",
        )
    tested = {s.id for unit in dealt[options.fold].values() for s in unit}
    return tuple(replace(s, split="test" if s.id in tested else "train") for s in subjects)


def _validated(
    name: str, subjects: Sequence[Subject], options: DataOptions, seed: int
) -> tuple[Subject, ...]:
    """Set aside whole units of the training subjects; at least one, and at least one is left."""
    units = _units([s for s in subjects if s.split == "train"], options.split_by)
    order = sorted(units, key=lambda u: derive(seed, f"{name}-val", u))
    count = min(max(1, round(options.val_share * len(order))), len(order) - 1)
    held = {s.id for unit in order[: max(count, 0)] for s in units[unit]}
    return tuple(replace(s, split="val") if s.id in held else s for s in subjects)
