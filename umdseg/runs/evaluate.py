"""The flow of evaluate.py: score a model as it is, or with a saved adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from umdseg.adapters import AdapterCard, load_adapter
from umdseg.backbones.base import Backbone
from umdseg.config.hardware import device_of
from umdseg.config.schema import Settings
from umdseg.data.seen import seen, seen_told
from umdseg.evaluation.baselines import evaluate_baselines
from umdseg.evaluation.cases import case_table, merge
from umdseg.evaluation.protocol import evaluate
from umdseg.evaluation.scans import SCANS
from umdseg.fusion import Fused, load_fusion
from umdseg.fusion.saved import FusionCard
from umdseg.runs.identity import folder_hash
from umdseg.runs.job import Job, say
from umdseg.runs.saved import adapter_folder, refuse_strangers, with_card, with_fusion
from umdseg.runs.stages import trained_stage

if TYPE_CHECKING:
    import pandas as pd


def run_evaluate(settings: Settings) -> Path:
    """Score on `data.split` and write a run folder.

    Raises:
        UserError: data, weights or adapter missing, unusable or contradicting each other.
    """
    saved, learned, known = None, None, set[str]()
    settings = with_fusion(settings)
    if settings.adapter.path:
        saved = adapter_folder(settings.adapter.path)
        card = AdapterCard.read(saved)
        settings, learned = with_card(settings, card), list(card.structures)
        known |= set(card.seen)
    fusion = Path(settings.fusion.path).expanduser() if settings.fusion.path else None
    known |= set(FusionCard.read(fusion).seen) if fusion else set()
    made = [folder_hash(folder) for folder in (saved, fusion) if folder is not None]
    job = Job.open("evaluate", settings, "+".join(made) or None, learned)
    if job.done():
        return job.path
    again = seen(job.subjects, known, settings.data.cache_dir)
    if again:
        say(f"caution: {seen_told(again, len(job.subjects))}")
    with job.recorded():
        parameters, routes = (0, sum(p.numel() for p in job.backbone.net.parameters())), list[str]()
        method, stage = "none", trained_stage(job.backbone, "none")
        if saved is not None:
            card = load_adapter(saved, job.backbone)
            parameters, routes, method = (card.trainable, card.total), card.routes, card.method
            stage = trained_stage(job.backbone, method)
        if fusion is not None:
            refuse_strangers(fusion, saved)
            job = replace(job, backbone=load_fusion(fusion, job.backbone, settings.fusion.subsets))
        untouched = saved is None and fusion is None
        cases = zero_shot(job) if untouched else scored(job, stage, method)
        job.keep(cases)
        cases = merge([cases, job.supervised, baselines(job)])
        job.finish(cases, parameters, routes, adapter=str(saved) if saved else None, seen=again)
    return job.path


def zero_shot(job: Job) -> pd.DataFrame:
    """Score the plain model, or take the table of the same evaluation made before."""
    store = job.store()
    known = store.get(job.path) if store else None
    if known is not None:
        # the same scores, whatever fold and shots the run that made them had
        return case_table(known.assign(fold=job.settings.fold, shots=job.settings.data.shots))
    cases = scored(job, "zero_shot", "none")
    if store:
        store.put(cases, job.path)
    return cases


def scored(job: Job, stage: str, adapter: str, keep: bool = True) -> pd.DataFrame:
    """Score the job's backbone on its subjects, on the device that the trainer section names.

    Args:
        job: backbone, subjects, structures.
        stage: of the rows.
        adapter: name for the rows.
        keep: write predictions and scans.csv into the run folder.
    """
    settings, backbone = job.settings, job.backbone
    backbone.to(device_of(settings.trainer.accelerator))
    return evaluate(
        backbone,
        job.dataset,
        job.subjects,
        options=settings.evaluation,
        stage=stage,
        model=settings.model.name,
        adapter=adapter,
        fusion=backbone.kind if isinstance(backbone, Fused) and backbone.takes else "none",
        save_to=job.path / "predictions" if keep else None,
        scans_to=job.path / SCANS if keep else None,
        bad_intensity=settings.data.bad_intensity,
        **job.asked,
    )


def baselines(job: Job) -> pd.DataFrame:
    """Case table of the trivial competitors asked for (empty when there are none)."""
    return evaluate_baselines(
        job.dataset, job.train, job.subjects, options=job.settings.evaluation, **job.asked
    )


def fused_parameters(backbone: Backbone) -> int:
    """How many values a fusion trains; 0 without one."""
    return sum(p.numel() for p in backbone.parts.parameters()) if isinstance(backbone, Fused) else 0
