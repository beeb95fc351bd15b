"""All checks in their order; none stops the others."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from umdseg.backbones import load_backbone
from umdseg.config.hardware import device_of
from umdseg.config.schema import Settings
from umdseg.data.checks import Headers
from umdseg.data.dataset import PairedDataset
from umdseg.data.geometry import Grid
from umdseg.data.training import origins
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.preflight import model, together
from umdseg.preflight.check import Check
from umdseg.preflight.configuration import configuration
from umdseg.preflight.deep import voxels
from umdseg.preflight.estimate import estimate
from umdseg.preflight.files import dataset_of, headers_of
from umdseg.preflight.fused import Joined, join
from umdseg.preflight.people import splits
from umdseg.preflight.windows import window
from umdseg.preflight.work import Work
from umdseg.runs.stages import measures_before
from umdseg.vocabulary import Modality, Subject


def look(
    door: str,
    overrides: Sequence[str],
    search: Sequence[str] = (),
    deep: bool = False,
    pictures: Path | None = None,
    probe: bool = False,
) -> list[Check]:
    """Look over a run before it starts.

    Args:
        door: `train` or `evaluate`.
        overrides: the command line of that door.
        search: further folders of YAML files.
        deep: read the voxels too.
        pictures: folder for one quality-control picture per subject.
        probe: run the model on a phantom (see `umdseg.preflight.probe`).

    Returns:
        One check per line of the table; mistakes are findings, none is raised.
    """
    settings, first = configuration(door, overrides, search)
    checks = [first]
    if settings is None:
        return checks
    told = {finding.where for finding in first.findings}
    dataset, listed = dataset_of(settings, told)
    checks.append(listed)
    headers: list[Headers] = []
    train: list[Subject] = []
    scored: list[Subject] = []
    if dataset is not None:
        headers, files = headers_of(settings, dataset)
        train, scored, split = splits(door, settings, dataset)
        checks += [files, split]
    checks += _model(door, settings, dataset, headers, train, scored, told)
    if deep and dataset is not None:
        checks += voxels(dataset, headers, pictures)
    if probe:
        checks.append(_probe(settings))
    return checks


def _probe(settings: Settings) -> Check:
    """The model of the run, loaded whatever its size, on a phantom."""
    from umdseg.preflight.probe import probe

    print("running the model on a phantom", file=sys.stderr, flush=True)
    try:
        backbone = load_backbone(**asdict(settings.model)).to(device_of(settings.trainer.accelerator))
        if backbone.takes:
            names = " and ".join(backbone.takes)
            return Check("probe", f"not probed: {backbone.card.name} takes {names} of one person together")
        (found,) = probe(backbone, settings.evaluation.precision)
    except UserError as error:
        return Check("probe", "not run", (Finding.of(error),))
    return Check("probe", found.what, () if found.level == "pass" else (found,))


def _model(
    door: str,
    settings: Settings,
    dataset: PairedDataset | None,
    headers: Sequence[Headers],
    train: Sequence[Subject],
    scored: Sequence[Subject],
    told: Collection[str],
) -> list[Check]:
    """What hangs on the model: weights, structures, prompts, adapter, and what the run costs.

    Mistakes at the places in `told` have been told.
    """
    try:
        names = dataset.select(settings.data.structures) if dataset is not None else ()
    except UserError as error:
        names, wrong = (), [Check("structures", "not chosen", (Finding.of(error),))]
    else:
        wrong = []
    print("looking at the model", file=sys.stderr, flush=True)
    try:
        plain = model.plain(settings)
    except UserError as error:
        found = Finding.of(error)
        return [*wrong, Check("model", "not built", () if found.where in told else (found,))]
    terms = model.weights(settings, plain.card)
    checks = [*wrong, terms]
    try:
        backbone = model.with_weights(settings, plain, terms)
        checks[-1] = model.filled(terms, backbone)
    except UserError as error:
        backbone = plain
        checks[-1] = Check(terms.name, terms.numbers, (*terms.findings, Finding.of(error)))
    if names:
        checks.append(model.structures(settings, plain.card, names, door))
    settings, inputs = together.inputs(settings, plain, scored)
    grids = _grids(headers, train if door == "train" else scored)
    checks += [model.prompts(settings, plain.card), window(backbone.card, grids), *inputs]
    scans = origins(train, settings.data.train_modalities, settings.data.paired)
    adapter = model.inject(settings, backbone, names, scans, door)
    checks.append(adapter)
    if "refuse" in (adapter.level, *(check.level for check in inputs)) or not names:
        return checks
    joined, fused = join(settings, backbone, train, names, door)
    checks += fused
    if any(check.level == "refuse" for check in fused):
        return checks
    known = [name for name in names if backbone.knows(name)]
    before = measures_before(settings, backbone)
    work = _work(door, settings, headers, train, scored, names, known, plain.takes, before, joined)
    return checks + estimate(settings, backbone, work)


def _grids(headers: Sequence[Headers], subjects: Sequence[Subject]) -> list[Grid]:
    """Grids of all scans of some subjects, as far as they are known."""
    grids = {path: grid for one in headers for path, grid in one.grids.items()}
    return [grids[scan.image] for s in subjects for scan in s.scans.values() if scan.image in grids]


def _work(
    door: str,
    settings: Settings,
    headers: Sequence[Headers],
    train: Sequence[Subject],
    scored: Sequence[Subject],
    names: Sequence[str],
    known: Sequence[str],
    takes: Sequence[Modality],
    before: bool,
    joined: Joined | None,
) -> Work:
    grids = {path: grid for one in headers for path, grid in one.grids.items()}
    wanted = {m for m, weight in settings.data.train_modalities.items() if weight > 0}
    training = [c.image for s in train for m, c in s.scans.items() if m in wanted and c.label]
    looked = [c.image for s in scored for m, c in s.scans.items() if m in settings.data.modalities]
    if takes:
        # scans given together are one prediction, on the grid of the first
        looked = [s.scans[takes[0]].image for s in scored if set(takes) <= set(s.scans)]
    fits = door == "train" and settings.fit.steps > 0
    both = {*training, *looked}
    # a model that is fused is scored scan by scan only before it is trained
    alone = 1 if joined is None else 0
    return Work(
        train=[grids[path] for path in training if path in grids],
        score=[grids[path] for path in looked if path in grids],
        names=names,
        known=known,
        stages=alone + (fits and before),
        fits=fits,
        unknown=len(both - grids.keys()),
        channels=max(len(takes), 1) if joined is None else len(joined.order),
        joined=joined,
        together=() if joined is None else [one for s in scored for one in joined.scored(s, grids)],
    )
