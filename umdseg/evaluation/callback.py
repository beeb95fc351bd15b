"""Evaluation before and after fitting, as a Lightning callback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from umdseg.backbones.base import Backbone
from umdseg.data.dataset import PairedDataset
from umdseg.data.fov import ON_CT, Reference
from umdseg.evaluation.cases import case_table, merge, merge_parts, read_cases, write_cases, write_part
from umdseg.evaluation.gap import gap
from umdseg.evaluation.options import EvaluationOptions
from umdseg.evaluation.protocol import evaluate
from umdseg.evaluation.scans import SCANS, merge_scans, part_of
from umdseg.evaluation.summary import summarise
from umdseg.inference.plain import plain
from umdseg.vocabulary import MODALITIES, Modality, PromptKind, Stage, Subject

if TYPE_CHECKING:
    import pandas as pd


class EvaluationCallback(Callback):
    """Scores the bare model before fitting (`zero_shot`) and the trained one after it (`adapted`).

    Each process scores every `world`-th subject and writes its part of the case table; the first
    one merges, and logs `zero_shot/dice/pet`, `adapted/dice/pet`, `gap/...`, `closure/...` and
    `forgetting/...` to every logger. `zero_shot` runs with the adapter switched off, so that it is
    right in a resumed run, too. The other runs when training ends, while the model is still on its
    device; where nothing was left to train it runs at the end of the fit.

    Args:
        dataset: names, ids and paths.
        subjects: who is scored.
        options: metrics, bootstrap, overlap.
        folder: run folder; case tables and predictions go there.
        model: name for the table.
        adapter: name for the table.
        fusion: name for the table.
        prompts: prompt kinds.
        modalities: scans looked at.
        structures: those scored; None means all of the dataset.
        seed: seed of the run.
        fold: fold of the run, for the table.
        shots: training subjects the run was allowed, for the table.
        reuse: case table of the same zero-shot evaluation made before, which then is not run again;
            its rows for other stages are left out.
        save_predictions: write predictions (pruning them to the pictured subjects is the caller's).
        backbone: finds the backbone in the LightningModule.
        zero_shot: False skips the evaluation before fitting.
        trained: stage of the trained model: `adapted`, or `supervised` where it started at random.
        reference: the reference grid, for first clicks and common scores.
        bad_intensity: refuse stops at a scan whose values cannot be what its units say; warn goes on.
    """

    def __init__(
        self,
        dataset: PairedDataset,
        subjects: Sequence[Subject],
        options: EvaluationOptions,
        folder: Path,
        *,
        model: str,
        adapter: str,
        fusion: str = "none",
        prompts: Sequence[PromptKind] = ("auto",),
        modalities: Sequence[Modality] = MODALITIES,
        structures: Sequence[str] | None = None,
        seed: int = 0,
        fold: int | None = None,
        shots: int | None = None,
        reuse: Path | Callable[[], pd.DataFrame | None] | None = None,
        save_predictions: bool = True,
        backbone: Callable[[LightningModule], Backbone] = lambda module: module.backbone,  # type: ignore[assignment,return-value]
        zero_shot: bool = True,
        trained: Stage = "adapted",
        reference: Reference = ON_CT,
        bad_intensity: str = "refuse",
    ) -> None:
        self.dataset, self.subjects, self.options, self.folder = dataset, list(subjects), options, folder
        self.names = {"model": model, "adapter": adapter, "fusion": fusion}
        self.prompts, self.modalities, self.structures, self.seed = prompts, modalities, structures, seed
        self.fold, self.shots = fold, shots
        self.reference, self.bad_intensity = reference, bad_intensity
        self.reuse, self.save_predictions, self.backbone, self.zero_shot = (
            reuse,
            save_predictions,
            backbone,
            zero_shot,
        )
        self.trained: Stage = trained
        self.tables: dict[str, pd.DataFrame] = {}
        self._scored: set[str] = set()

    @property
    def cases(self) -> pd.DataFrame:
        """All rows so far (complete on the first process only)."""
        return merge(list(self.tables.values()))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the model without its adapter, unless that has been done before."""
        if not self.zero_shot:
            return
        known = self._known()
        if known is not None:
            # measured by another run, perhaps with other training subjects: the rows are this run's now
            rows = known[known["stage"] == "zero_shot"]
            self.tables["zero_shot"] = case_table(rows.assign(fold=self.fold, shots=self.shots))
        else:
            with plain(self.backbone(pl_module)) as base:
                self._score(trainer, base, "zero_shot")
        self._log(trainer, "zero_shot")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the trained model while it is still on its device."""
        self._score(trainer, self.backbone(pl_module), self.trained)
        self._log(trainer, self.trained)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the trained model of a resumed run that had no step left to train."""
        if self.trained not in self._scored:
            self.on_train_end(trainer, pl_module)

    def _known(self) -> pd.DataFrame | None:
        if isinstance(self.reuse, Path):
            return read_cases(self.reuse)
        return self.reuse() if self.reuse is not None else None

    def _score(self, trainer: Trainer, backbone: Backbone, stage: Stage) -> None:
        rank, world = trainer.global_rank, trainer.world_size
        part = evaluate(
            backbone,
            self.dataset,
            self.subjects[rank::world],
            options=self.options,
            stage=stage,
            model=self.names["model"],
            adapter="none" if stage == "zero_shot" else self.names["adapter"],
            fusion="none" if stage == "zero_shot" else self.names["fusion"],
            prompts=self.prompts,
            modalities=self.modalities,
            structures=self.structures,
            seed=self.seed,
            fold=self.fold,
            shots=self.shots,
            save_to=self.folder / "predictions" if self.save_predictions else None,
            scans_to=self.folder / SCANS if world == 1 else part_of(self.folder, stage, rank),
            reference=self.reference,
            bad_intensity=self.bad_intensity,
            progress=rank == 0,
        )
        self._scored.add(stage)
        if world == 1:
            self.tables[stage] = part
        else:
            write_part(part, self.folder, stage, rank)
            trainer.strategy.barrier(f"evaluated-{stage}")
            if rank == 0:
                merge_scans(self.folder, stage, world)
                self.tables[stage] = merge_parts(self.folder, stage, world)
        if rank == 0:
            write_cases(self.cases, self.folder)

    def _log(self, trainer: Trainer, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        values = logged_values(self.cases, stage, self.options, self.seed)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
            logger.save()


def logged_values(cases: pd.DataFrame, stage: str, options: EvaluationOptions, seed: int) -> dict[str, float]:
    """Numbers of one stage for loggers: `zero_shot/dice/pet`, `gap/dice/ct-pet/zero_shot`, ...

    Prompts other than `auto` are named: `zero_shot/dice/pet/point`; scans given together are one:
    `zero_shot/dice/ct+pet`.
    """
    values: dict[str, float] = {}
    for metric in options.metrics:
        # intervals of the means are not logged, so few resamples do
        table = summarise(cases, metric, n_resamples=100, seed=seed)
        for row in table[(table["stage"] == stage) & (table["structure"] == "macro")].to_dict("records"):
            suffix = "" if row["prompt"] == "auto" else f"/{row['prompt']}"
            values[f"{stage}/{metric}/{str(row['modality']).replace(' ', '_')}{suffix}"] = float(row["mean"])
    result: dict[str, list[dict[str, Any]]] = gap(cases, options.bootstrap, seed)
    for kind, field in (("gaps", "gap"), ("closure", "value"), ("forgetting", "value")):
        for entry in result[kind]:
            if entry["stage"] == stage and entry[field] is not None:
                suffix = "" if entry["prompt"] == "auto" else f"/{entry['prompt']}"
                pair = f"{entry['reference']}-{entry['target']}"
                name = f"{kind.removesuffix('s')}/{entry['metric']}/{pair}{suffix}"
                values[f"{name}/{stage}" if kind == "gaps" else name] = float(entry[field])
    return values
