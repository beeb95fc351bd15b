"""The flow of train.py: measure, adapt, measure again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umdseg import adapters
from umdseg.adapters import Adapter, AdapterCard
from umdseg.config.schema import Settings
from umdseg.data.datamodule import PairedDataModule
from umdseg.evaluation.callback import EvaluationCallback
from umdseg.evaluation.cases import merge
from umdseg.runs.evaluate import baselines, zero_shot
from umdseg.runs.export import export_weights
from umdseg.runs.identity import code_hash
from umdseg.runs.job import FOLDER_VARIABLE, Job, say
from umdseg.runs.trainer import build_trainer
from umdseg.runs.zero_shot import KeepZeroShot

if TYPE_CHECKING:
    import pandas as pd


def run_train(settings: Settings) -> Path:
    """Run one configuration from zero-shot to report.

    Raises:
        UserError: data or weights missing or unusable.
    """
    job = Job.open("train", settings)
    if job.done():
        return job.path
    with job.recorded():
        adapter, learned = _inject(job)
        trainable, total = adapter.parameters(job.backbone)
        if not trainable or not settings.fit.steps:
            why = f"adapter={settings.adapter.name} trains nothing" if not trainable else "fit.steps=0"
            say(f"{why}: zero-shot evaluation only")
            adapters.unload(job.backbone)
            cases = zero_shot(job)
        else:
            cases = _fit(job, adapter, (trainable, total))
            if not job.folder.leader:
                return job.path
            _save(job, adapter)
        cases = merge([cases, baselines(job)])
        job.finish(cases, (trainable, total), learned=learned)
    return job.path


def _inject(job: Job) -> tuple[Adapter, list[str]]:
    """Put the adapter in; structures the model does not know get class rows of their own."""
    learned = [name for name in job.structures if not job.backbone.knows(name)]
    rows = job.backbone.add_structures(learned) if learned else {}
    if learned:
        say(f"new for {job.backbone.card.name}, learned by class: {', '.join(learned)}")
    adapter = adapters.build(job.settings.adapter)
    adapter.inject(job.backbone, rows)
    return adapter, learned


def _fit(job: Job, adapter: Adapter, parameters: tuple[int, int]) -> pd.DataFrame:
    from umdseg.tasks.segment import SegmentTask

    settings = job.settings
    say(f"adapter={settings.adapter.name}: {parameters[0]:,} of {parameters[1]:,} parameters are trained")
    task = SegmentTask(job.backbone, adapter, settings.fit, job.structures, settings.run.seed)
    evaluation = _evaluation(job)
    store = job.store()
    known = store is not None and (store.folder / "done.json").is_file()
    keep = [KeepZeroShot(store, evaluation, job.path, known)] if store and job.folder.leader else []
    if known and store and settings.callbacks.evaluate_before:
        say("zero-shot evaluation: taken from an earlier run")
        evaluation.reuse = lambda: store.get(job.path)
    os.environ[FOLDER_VARIABLE] = str(job.path)
    try:
        trainer = build_trainer(settings, job.path, [evaluation, *keep])
        checkpoint = job.folder.checkpoint
        if checkpoint is not None:
            say("continuing from the last checkpoint")
        trainer.fit(task, datamodule=_datamodule(job), ckpt_path=checkpoint or settings.run.ckpt_path)
    finally:
        if job.folder.leader:
            os.environ.pop(FOLDER_VARIABLE, None)
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
        prompts=settings.prompt.kinds,  # type: ignore[arg-type]
        modalities=settings.data.modalities,  # type: ignore[arg-type]
        structures=job.structures,
        seed=settings.run.seed,
        zero_shot=settings.callbacks.evaluate_before and settings.run.task != "pretrain",
    )


def _datamodule(job: Job) -> PairedDataModule:
    from umdseg.inference import preprocessing

    card, settings = job.backbone.card, job.settings
    return PairedDataModule(
        job.dataset, settings.data, preprocessing(card), card.window, job.structures, settings.run.seed
    )


def _save(job: Job, adapter: Adapter) -> None:
    settings = job.settings
    trained_on = [m for m, weight in settings.data.train_modalities.items() if weight > 0]
    if adapter.method != "none" or job.backbone.new_structures:
        adapter.save(
            job.path / "adapter", job.backbone, AdapterCard.describe(job.backbone, job.structures, trained_on)
        )
    if settings.fit.export_weights:
        adapters.merge(job.backbone)
        path = Path(settings.fit.export_weights).expanduser()
        record: dict[str, Any] = {
            "task": settings.run.task,
            "seed": settings.run.seed,
            "steps": settings.fit.steps,
            "run": job.hash,
        }
        record |= {"overrides": list(settings.overrides), "code": code_hash(), "data": job.data}
        record |= {"dataset": job.dataset.name, "modalities": trained_on, "structures": list(job.structures)}
        export_weights(job.backbone, path, record)
        say(f"weights written to {path}")
