"""The flow of evaluate.py: score a model as it is, or with a saved adapter."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from umdseg.adapters import AdapterCard, AdapterOptions, load_adapter
from umdseg.backbones.base import Backbone
from umdseg.config.hardware import device_of
from umdseg.config.schema import Settings
from umdseg.errors import UserError
from umdseg.evaluation.baselines import evaluate_baselines
from umdseg.evaluation.cases import case_table, merge
from umdseg.evaluation.protocol import evaluate
from umdseg.evaluation.scans import SCANS
from umdseg.fusion import Fused, FusionOptions, load_fusion
from umdseg.fusion.saved import FILE, FusionCard
from umdseg.registry import resolve
from umdseg.runs.identity import folder_hash
from umdseg.runs.job import Job, say
from umdseg.runs.restored import registered_name, restored
from umdseg.runs.stages import trained_stage

if TYPE_CHECKING:
    import pandas as pd


def run_evaluate(settings: Settings) -> Path:
    """Score on `data.split` and write a run folder.

    Raises:
        UserError: data, weights or adapter missing, unusable or contradicting each other.
    """
    saved, learned = None, None
    settings = with_fusion(settings)
    if settings.adapter.path:
        saved = adapter_folder(settings.adapter.path)
        card = AdapterCard.read(saved)
        settings, learned = with_card(settings, card), list(card.structures)
    fusion = Path(settings.fusion.path).expanduser() if settings.fusion.path else None
    made = [folder_hash(folder) for folder in (saved, fusion) if folder is not None]
    job = Job.open("evaluate", settings, "+".join(made) or None, learned)
    if job.done():
        return job.path
    with job.recorded():
        parameters, routes = (0, sum(p.numel() for p in job.backbone.net.parameters())), list[str]()
        method, stage = "none", trained_stage(job.backbone, "none")
        if saved is not None:
            card = load_adapter(saved, job.backbone)
            parameters, routes, method = (card.trainable, card.total), card.routes, card.method
            stage = trained_stage(job.backbone, method)
        if fusion is not None:
            _refuse_strangers(fusion, saved)
            job = replace(job, backbone=load_fusion(fusion, job.backbone))
        if saved is None and fusion is None:
            cases = zero_shot(job)
        else:
            cases = scored(job, stage, method)
        job.keep(cases)
        cases = merge([cases, job.supervised, baselines(job)])
        job.finish(cases, parameters, routes, adapter=str(saved) if saved else None)
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


def with_fusion(settings: Settings) -> Settings:
    """Settings with the fusion of a saved one: `fusion.path`, or what lies in the run `adapter.path` names.

    Raises:
        UserError: no saved fusion there.
    """
    path = settings.fusion.path
    if path is None and settings.adapter.path:
        run = Path(settings.adapter.path).expanduser()
        if (run / "fusion").is_dir():
            path = str(run / "fusion")
        elif (run.parent / "fusion").is_dir():
            say(f"scored without the fusion trained beside it; adapter.path={run.parent} scores both")
    if path is None:
        return settings
    folder = Path(path).expanduser()
    if not (folder / FILE).is_file() and (folder / "fusion" / FILE).is_file():
        folder = folder / "fusion"
    card = FusionCard.read(folder)
    beside = folder.parent / "adapter"
    if settings.adapter.path is None and beside.is_dir():
        # trained together, they mean something only together
        say(f"with the adapter trained beside it: {beside}")
        settings = replace(settings, adapter=replace(settings.adapter, path=str(beside)))
    made: type[FusionOptions] = resolve("fusion", card.kind).Options
    options = made(**{"name": card.kind, "path": str(folder), **card.options})
    if settings.model.name == registered_name(card.preprocessing, card.base_model):
        settings = replace(settings, model=restored(settings, settings.model.name, card.preprocessing))
    return replace(settings, fusion=options)


def _refuse_strangers(fusion: Path, adapter: Path | None) -> None:
    """Refuse a fusion beside another adapter than it was trained with."""
    wanted, given = FusionCard.read(fusion).adapter, folder_hash(adapter) if adapter else None
    if wanted != given:
        made = "without an adapter" if wanted is None else "with another adapter"
        raise UserError(
            f"the fusion was trained {made}",
            where=fusion,
            expected="adapter.path=RUN, the run that trained both" if wanted else "fusion.path alone",
        )


def adapter_folder(path: str) -> Path:
    """The folder of a saved adapter, given itself or its run folder."""
    folder = Path(path).expanduser()
    inner = folder / "adapter"
    return inner if inner.is_dir() else folder


def with_card(settings: Settings, card: AdapterCard) -> Settings:
    """Settings with model, its options and method from an adapter's card.

    Raises:
        UserError: the command line asks for another model or method, or changes the adapter's options.
    """
    name = registered_name(card.preprocessing, card.base_model)
    wanted = {
        "model.name": (settings.model.name, name),
        "adapter.name": (settings.adapter.name, card.method),
    }
    for key, (given, right) in wanted.items():
        if key in settings.explicit and given != right:
            raise UserError(
                f"the adapter was made with '{right}', not '{given}'",
                where=key,
                expected="nothing: with adapter.path, model and method come from the adapter's card",
            )
    for key in settings.explicit:
        if key.startswith("adapter.") and key not in ("adapter.path", "adapter.name"):
            raise UserError(
                "an adapter's options are fixed once it is saved", where=key, expected="adapter.path alone"
            )
    return replace(
        settings,
        model=restored(settings, name, card.preprocessing),
        # config.yaml then says what is scored, rank and all
        adapter=_options(card, settings.adapter.path),
    )


def _options(card: AdapterCard, path: str | None) -> AdapterOptions:
    made: type[AdapterOptions] = resolve("adapter", card.method).Options
    known = {spec.name for spec in fields(made)}
    return made(
        **{"name": card.method, "path": path, **{k: v for k, v in card.options.items() if k in known}}
    )
