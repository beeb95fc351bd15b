"""The flow of train.py: measure, adapt, measure again."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umdseg import adapters, fusion
from umdseg.adapters import Adapter, AdapterCard
from umdseg.adapters.routes import routes_of
from umdseg.config.schema import Settings
from umdseg.data.seen import marks
from umdseg.data.training import check_reference
from umdseg.errors import UserError
from umdseg.evaluation.callback import EvaluationCallback
from umdseg.evaluation.cases import merge, on_grid
from umdseg.fusion import Fused, save_fusion
from umdseg.runs.clock import FitClock
from umdseg.runs.evaluate import baselines, fused_parameters, zero_shot
from umdseg.runs.export import export_weights
from umdseg.runs.identity import code_hash, folder_hash, git_commit
from umdseg.runs.interrupt import interruptible
from umdseg.runs.job import FOLDER_VARIABLE, Job, say
from umdseg.runs.keeping import KeepTrained
from umdseg.runs.old import score_old
from umdseg.runs.people import training_data
from umdseg.runs.provenance import versions
from umdseg.runs.stages import measures_before, starts_from_nothing, trained_stage
from umdseg.runs.trainer import build_trainer, fit_callbacks
from umdseg.runs.zero_shot import KeepZeroShot
from umdseg.tasks.layout import channels_first, channels_last
from umdseg.tasks.warm_start import copy_parts

if TYPE_CHECKING:
    import pandas as pd

    from umdseg.data.datamodule import PairedDataModule


def run_train(settings: Settings) -> Path:
    """Run one configuration from zero-shot to report.

    Raises:
        UserError: data or weights missing or unusable.
    """
    job = Job.open("train", settings)
    if job.done():
        return job.path
    old, clock = None, FitClock()
    with job.recorded():
        copy_parts(job.backbone.net, settings.fit.copy_parts)
        adapter, learned = _inject(job)
        trainable, total = adapter.parameters(job.backbone)
        routes = adapter.routes
        job = _fuse(job)
        nothing = not trainable + fused_parameters(job.backbone)
        if nothing or not settings.fit.steps:
            why = f"adapter={settings.adapter.name} trains nothing" if nothing else "fit.steps=0"
            say(f"{why}: zero-shot evaluation only")
            job = replace(job, backbone=job.backbone.release()) if isinstance(job.backbone, Fused) else job
            adapters.unload(job.backbone)
            trainable, routes = 0, ()
            cases = zero_shot(job)
        else:
            cases = _fit(job, adapter, (trainable, total), clock)
            if not job.folder.leader:
                return job.path
            job.keep(cases)
            old = score_old(job) if settings.run.task == "train" else None
            if settings.fit.export_weights:
                _export(job, Path(settings.fit.export_weights).expanduser(), cases)
        job.keep(cases)
        cases = merge([cases, job.supervised, baselines(job)])
        # 0 where nothing was fitted
        spent = round(clock.seconds, 1)
        job.finish(cases, (trainable, total), routes, old, learned=learned, fit_seconds=spent or None)
    return job.path


def _inject(job: Job) -> tuple[Adapter, list[str]]:
    """Put the adapter in; structures the model does not know get class rows of their own."""
    # models asked by clicks or boxes alone have no classes to add to
    by_class = "auto" in job.backbone.card.prompts
    learned = [name for name in job.structures if by_class and not job.backbone.knows(name)]
    rows = job.backbone.add_structures(learned) if learned else {}
    if learned:
        say(f"new for {job.backbone.card.name}, learned by class: {', '.join(learned)}")
    adapter = adapters.build(job.settings.adapter)
    routes: list[str] = []
    if adapter.per is not None:
        data = _data(job)
        routes = routes_of(data.training_origins(), adapter.per)
        say(f"adapter.per={adapter.per}: one adapter for each of {', '.join(routes)}")
    adapter.inject(job.backbone, rows, routes)
    return adapter, learned


def _fuse(job: Job) -> Job:
    """Wrap the adapted model in the fusion asked for; its values train, too."""
    options = job.settings.fusion
    if options.name == "none":
        return job
    data = _data(job)
    reference, given = job.settings.data.reference, data.fused_modalities()
    fused = fusion.build(options, job.backbone, given, reference, job.structures)
    check_reference(reference, given)
    assert isinstance(fused, Fused)
    own = fused_parameters(fused)
    names, first = " and ".join(fused.modalities), fused.modalities[fused.order[0]]
    say(f"fusion={fused.kind}: {names} together, starting from {first}; {own:,} parameters of its own")
    return replace(job, backbone=fused)


def _fit(job: Job, adapter: Adapter, parameters: tuple[int, int], clock: FitClock) -> pd.DataFrame:
    from umdseg.tasks.segment import SegmentTask

    settings = job.settings
    say(f"adapter={settings.adapter.name}: {parameters[0]:,} of {parameters[1]:,} parameters are trained")
    if settings.callbacks.evaluate_before and starts_from_nothing(job.backbone):
        say(f"no zero-shot evaluation: {job.backbone.card.name} starts at random and knows nothing yet")
    data = _data(job)
    if settings.fit.validate_every:
        data.validated(settings.fit.validation_patches).validation_subjects()
    seed, targets = settings.run.seed, data.target_modalities()
    task = SegmentTask(job.backbone, adapter, settings.fit, job.structures, seed, targets)
    evaluation = _evaluation(job)
    store = job.store()
    known = store is not None and (store.folder / "done.json").is_file()
    keep = [KeepZeroShot(store, evaluation, job.path, known)] if store and job.folder.leader else []
    if known and store and settings.callbacks.evaluate_before:
        say("zero-shot evaluation: taken from an earlier run")
        evaluation.reuse = lambda: store.get(job.path)
    os.environ[FOLDER_VARIABLE] = str(job.path)
    try:
        last = settings.trainer.channels_last
        own = [clock, *fit_callbacks(settings, job.path), KeepTrained(lambda: _save(job, adapter), last)]
        trainer = build_trainer(settings, job.path, [*own, evaluation, *keep])
        if last:
            channels_last(job.backbone)
        checkpoint = job.folder.checkpoint
        if checkpoint is not None:
            say("continuing from the last checkpoint")
        start = checkpoint or _given(settings.run.ckpt_path)
        with interruptible():
            trainer.fit(task, datamodule=data, ckpt_path=_readable(start))
    finally:
        if job.folder.leader:
            os.environ.pop(FOLDER_VARIABLE, None)
    channels_first(job.backbone)
    return evaluation.cases


def _evaluation(job: Job) -> EvaluationCallback:
    settings = job.settings
    return EvaluationCallback(
        job.dataset,
        job.subjects,
        settings.evaluation,
        job.path,
        model=settings.model.name,
        adapter=settings.adapter.name,
        fusion=settings.fusion.name,
        zero_shot=measures_before(settings, job.backbone),
        trained=trained_stage(job.backbone, settings.adapter.name),
        bad_intensity=settings.data.bad_intensity,
        **job.asked,
    )


def _given(path: str | None) -> Path | None:
    return Path(path).expanduser() if path else None


def _readable(checkpoint: Path | None) -> Path | None:
    """Refuse a file that is no checkpoint before Lightning trips over it.

    Raises:
        UserError: naming the file.
    """
    import torch

    if checkpoint is None:
        return None
    try:
        held = torch.load(checkpoint, map_location="cpu", weights_only=True)
    # a damaged file can fail anywhere in unpickling
    except Exception as error:
        raise UserError(
            "the checkpoint cannot be read",
            where=checkpoint,
            expected="an undamaged checkpoint of the same run; without the file the run starts again",
        ) from error
    if not isinstance(held, dict) or "state_dict" not in held:
        raise UserError("not a checkpoint", where=checkpoint, expected="RUN/checkpoints/last.ckpt")
    return checkpoint


def _data(job: Job) -> PairedDataModule:
    return training_data(job.settings, job.dataset, job.backbone, job.structures)


def _save(job: Job, adapter: Adapter) -> None:
    data = _data(job)
    people = data.training_subjects()
    # what decides which step is kept has been seen, too
    people += data.validation_subjects() if job.settings.fit.validate_every else []
    known = marks(people, job.settings.data.cache_dir)
    if adapter.method != "none" or job.backbone.new_structures:
        card = AdapterCard.describe(job.backbone, job.structures, data.trained_modalities(), known)
        adapter.save(job.path / "adapter", job.backbone, card)
    if isinstance(job.backbone, Fused):
        beside = job.path / "adapter"
        trained_with = folder_hash(beside) if beside.is_dir() else None
        save_fusion(job.backbone, job.path / "fusion", trained_with, known)


def _export(job: Job, path: Path, cases: pd.DataFrame) -> None:
    adapters.merge(job.backbone)
    export_weights(job.backbone, path, _record(job, _data(job), cases))
    say(f"weights written to {path}")


def _record(job: Job, data: PairedDataModule, cases: pd.DataFrame) -> dict[str, Any]:
    """How exported weights were made: enough to make them again, without the paths of one machine."""
    settings = job.settings
    places = ("runs_dir", "fit.export_weights", "data.cache_dir", "data.root", "data.manifest")
    named = ("model.weights", "data.labels", "ckpt_path")
    overrides = []
    for text in settings.overrides:
        key, _, value = text.lstrip("+").partition("=")
        if key not in places:
            overrides.append(f"{key}={_name(value)}" if key in named else text)
    return {
        "task": settings.run.task,
        "overrides": overrides,
        "seed": settings.run.seed,
        "started_from": job.backbone.weights_sha256,
        "fit": asdict(settings.fit) | {"export_weights": _name(settings.fit.export_weights)},
        "dataset": job.dataset.name,
        "modalities": data.trained_modalities(),
        "structures": list(job.structures),
        "training_subjects": len(data.training_subjects()),
        "macro_dice_on_its_test_split": _macro_dice(cases),
        "run": job.hash,
        "code": code_hash(),
        "git": git_commit(),
        "data": job.data,
        "versions": versions(),
    }


def _macro_dice(cases: pd.DataFrame) -> dict[str, float]:
    """Mean Dice by `ct/auto`; empty where it was not computed."""
    scored = on_grid(cases)
    ok = scored[(scored["status"] == "ok") & scored["dice"].notna()]
    means = ok.groupby(["modality", "prompt"])["dice"].mean().round(4).reset_index().to_dict("records")
    return {f"{row['modality']}/{row['prompt']}": float(row["dice"]) for row in means}


def _name(path: str | None) -> str | None:
    """The last part of a path."""
    return Path(path).name if path else None
