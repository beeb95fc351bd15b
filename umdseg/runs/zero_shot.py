"""Zero-shot evaluations made once: same model, data, prompts and code give the same table."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningModule, Trainer

from umdseg.config.check import flatten
from umdseg.config.schema import Settings
from umdseg.evaluation.callback import EvaluationCallback
from umdseg.evaluation.cases import read_cases, write_cases
from umdseg.evaluation.scans import SCANS, read_scans, write_scans
from umdseg.files import sha256_value, write_json
from umdseg.runs.identity import code_hash
from umdseg.runs.places import by_content

if TYPE_CHECKING:
    import pandas as pd

# what changes the statistics or the report, not the table
_AFTERWARDS = tuple(
    f"evaluation.{name}"
    for name in (
        *("bootstrap", "baselines", "supervised"),
        *("overlay_subjects", "save_predictions", "old_structures"),
    )
)
# where weights lie and that their terms were read; the weights themselves are hashed
_PLACES = ("model.weights", "model.accept_licence")


@dataclass(frozen=True)
class ZeroShotStore:
    """`runs/zero_shot/<key>/` with the case table and the predictions of one evaluation.

    Attributes:
        folder: its place.
    """

    folder: Path

    @classmethod
    def of(
        cls,
        settings: Settings,
        data: str,
        weights: str | None,
        subjects: Sequence[str],
        structures: Sequence[str],
    ) -> ZeroShotStore:
        """The store of an evaluation.

        Args:
            settings: checked configuration.
            data: fingerprint of the dataset.
            weights: hash of the base weights.
            subjects: ids of who is scored.
            structures: those scored.
        """
        flat = by_content(flatten(settings))
        chosen = {
            k: v
            for k, v in flat.items()
            if k.startswith(("evaluation.", "prompt.", "model.")) and k not in (*_AFTERWARDS, *_PLACES)
        }
        parts = {**chosen, "modalities": settings.data.modalities, "model": settings.model.name, "data": data}
        parts |= {"weights": weights, "seed": settings.run.seed, "code": code_hash()}
        parts |= {"reference": settings.data.reference, "bad_intensity": settings.data.bad_intensity}
        parts |= {"subjects": list(subjects), "structures": list(structures)}
        return cls(settings.runs_dir / "zero_shot" / sha256_value(parts)[:16])

    def get(self, run: Path) -> pd.DataFrame | None:
        """The stored table, predictions and scans.csv copied into a run folder; None when there is none."""
        if not (self.folder / "done.json").is_file():
            return None
        _copy(self.folder / "predictions", run / "predictions")
        write_scans(read_scans(self.folder / SCANS), run / SCANS)
        return read_cases(self.folder / "cases.parquet")

    def put(self, cases: pd.DataFrame, run: Path) -> None:
        """Keep a table, the zero-shot predictions and scans.csv of a run folder."""
        _copy(run / "predictions", self.folder / "predictions")
        write_scans(read_scans(run / SCANS), self.folder / SCANS)
        write_cases(cases, self.folder)
        write_json(self.folder / "done.json", {"rows": len(cases)})


class KeepZeroShot(Callback):
    """Puts what the evaluation callback made into the store; stands after it in the list."""

    def __init__(self, store: ZeroShotStore, evaluation: EvaluationCallback, run: Path, known: bool) -> None:
        self.store, self.evaluation, self.run, self.known = store, evaluation, run, known

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the table as soon as it exists, so that a killed run need not repeat it."""
        cases = self.evaluation.tables.get("zero_shot")
        if trainer.is_global_zero and cases is not None and not self.known:
            self.store.put(cases, self.run)


def _copy(source: Path, target: Path) -> None:
    """Copy zero-shot predictions and their index files."""
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        if path.is_file() and (path.suffix == ".json" or "__zero_shot__" in path.name):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
