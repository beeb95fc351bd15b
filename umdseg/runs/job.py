"""What both doors do before and after their own work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from umdseg.backbones import load_backbone
from umdseg.backbones.base import Backbone
from umdseg.config.schema import COMPONENTS, FIXED, Settings
from umdseg.data.dataset import PairedDataset
from umdseg.data.fov import Reference
from umdseg.evaluation.cases import merge, write_cases
from umdseg.evaluation.forgotten import forgotten
from umdseg.evaluation.gap import gap
from umdseg.evaluation.inputs import inputs_of, looked_at
from umdseg.evaluation.predictions import keep_predictions, median_subjects
from umdseg.files import write_json
from umdseg.fusion.base import Fused
from umdseg.registry import resolve
from umdseg.runs.folder import RunFolder
from umdseg.runs.identity import run_hash
from umdseg.runs.people import accept, baseline_subjects, scored_structures, scored_subjects
from umdseg.runs.provenance import provenance
from umdseg.runs.supervised import supervised_rows
from umdseg.runs.zero_shot import ZeroShotStore
from umdseg.vocabulary import Subject

if TYPE_CHECKING:
    import pandas as pd

# how the process that owns a run tells the helper processes of distributed training where it is
FOLDER_VARIABLE = "UMDSEG_RUN_FOLDER"


@dataclass
class Job:
    """One run's parts.

    Attributes:
        door: `train` or `evaluate`.
        settings: checked configuration.
        dataset: subjects and structures.
        data: fingerprint of the dataset.
        backbone: the plain model.
        subjects: who is scored.
        structures: those looked for.
        train: who the baselines that learn are fitted on.
        supervised: rows of supervised networks beside the model's; empty without any.
        folder: run folder.
        hash: the run's hash.
    """

    door: str
    settings: Settings
    dataset: PairedDataset
    data: str
    backbone: Backbone
    subjects: list[Subject]
    structures: tuple[str, ...]
    train: list[Subject]
    supervised: pd.DataFrame
    folder: RunFolder
    hash: str

    @classmethod
    def open(
        cls, door: str, settings: Settings, adapter: str | None = None, learned: Sequence[str] | None = None
    ) -> Job:
        """Load data and model, and find the run folder.

        Args:
            door: `train` or `evaluate`.
            settings: checked configuration.
            adapter: hash of a saved adapter that is scored.
            learned: structures that adapter was trained on.

        Raises:
            UserError: data or weights missing or unusable, or nobody to score or to fit a baseline on.
        """
        from lightning.pytorch import seed_everything

        seed_everything(settings.run.seed, workers=True, verbose=False)
        dataset: PairedDataset = resolve("data", settings.data.name)(settings.data).load(settings.run.seed)
        structures = scored_structures(settings, dataset, learned)
        train = baseline_subjects(settings, dataset)
        model = settings.model
        backbone = load_backbone(**asdict(model))
        if backbone.loaded is not None:
            say(f"weights: {backbone.loaded.told()}")
        accept(door, settings, backbone)
        subjects = scored_subjects(door, settings, dataset, backbone, structures)
        supervised = supervised_rows(settings, backbone, dataset.name, subjects, structures)
        data = dataset.fingerprint(settings.data.cache_dir)
        digest = run_hash(settings, data, backbone.state_sha256, adapter)
        folder = _folder(door, settings, digest)
        people = subjects, structures, train, supervised
        return cls(door, settings, dataset, data, backbone, *people, folder, digest)

    @property
    def path(self) -> Path:
        """The run folder's path."""
        return self.folder.path

    @property
    def asked(self) -> dict[str, Any]:
        """What every evaluation of this run is told: prompts, scans, structures, grid, where it belongs."""
        settings = self.settings
        wanted: Any = settings.data.modalities
        return {
            "prompts": settings.prompt.kinds,
            # what a model of several scans does not take narrows no field of view, and is scored by nothing
            "modalities": wanted
            if isinstance(self.backbone, Fused)
            else looked_at(inputs_of(self.backbone, wanted)),
            "structures": self.structures,
            "seed": settings.run.seed,
            "fold": settings.fold,
            "shots": settings.data.shots,
            "reference": Reference(settings.data.reference, self.backbone.card.spacing),
        }

    def done(self) -> bool:
        """Whether there is nothing to do; says so. With resume=never an earlier folder is set aside."""
        if self.settings.run.resume == "never":
            aside = self.folder.set_aside()
            if aside is not None:
                say(f"resume=never: the earlier run is now {aside}")
            return False
        if self.folder.leader and self.folder.complete:
            say("this run is already done; resume=never runs it again")
            if self.settings.run.save_predictions and "save_predictions: false" in self._recorded_config():
                say("it did not keep its predictions; resume=never makes them")
            return True
        return False

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Claim the folder and write its provenance; how the run ended is written whatever happens."""
        self.folder.claim()
        weights: dict[str, Any] = {"model": self.settings.model.name, "sha256": self.backbone.weights_sha256}
        weights |= {"state_sha256": self.backbone.state_sha256, "random": self.backbone.random_weights}
        terms = self.backbone.card.weights
        if not self.backbone.random_weights:
            weights |= {"licence": terms.licence, "commercial": terms.commercial}
        if self.backbone.loaded is not None:
            weights |= self.backbone.loaded.record()
        data = {"name": self.dataset.name, "fingerprint": self.data, "scored": [s.id for s in self.subjects]}
        record = provenance(self.settings, self.door, self.hash, weights=weights, data=data)
        self.folder.begin(record, config_text(self.settings))
        try:
            yield
        except BaseException as error:
            self.folder.end("failed" if isinstance(error, Exception) else "stopped")
            raise
        finally:
            self.folder.release()

    def _recorded_config(self) -> str:
        return (self.path / "config.yaml").read_text(encoding="utf-8")

    def store(self) -> ZeroShotStore | None:
        """Where this zero-shot evaluation is kept; None for random weights, which are new every time."""
        if self.backbone.random_weights:
            return None
        ids = [subject.id for subject in self.subjects]
        return ZeroShotStore.of(self.settings, self.data, self.backbone.state_sha256, ids, self.structures)

    def keep(self, cases: pd.DataFrame) -> None:
        """Write the case table so far: what follows may fail, and scores take long."""
        if self.folder.leader:
            write_cases(merge([cases]), self.path)

    def finish(
        self,
        cases: pd.DataFrame,
        parameters: tuple[int, int],
        routes: Sequence[str] = (),
        old: pd.DataFrame | None = None,
        **facts: Any,
    ) -> None:
        """Write case table, gap.json and report, print the table, and mark the run complete.

        Args:
            cases: all rows.
            parameters: trainable and total number.
            routes: modalities, tracers or sites with an adapter of their own.
            old: rows of structures that were not trained, for what was forgotten.
            facts: further entries of the provenance.
        """
        from umdseg.report import build_report, print_result
        from umdseg.report.words import terms_notice

        options = self.settings.evaluation
        write_cases(merge([cases]), self.path)
        result = gap(cases, options.bootstrap, self.settings.run.seed)
        result["adapter"] = {"trainable": parameters[0], "total": parameters[1]}
        if routes:
            result["adapter"]["routes"] = list(routes)
        if isinstance(self.backbone, Fused):
            own = sum(p.numel() for p in self.backbone.parts.parameters())
            given = {"kind": self.backbone.kind, "modalities": list(self.backbone.modalities)}
            result["fusion"] = {**given, "parameters": own}
        if old is not None:
            result["old_structures"] = forgotten(old, options.bootstrap, self.settings.run.seed)
        write_json(self.path / "gap.json", result)
        if not self.settings.run.save_predictions:
            keep_predictions(self.path / "predictions", median_subjects(cases, options.overlay_subjects))
        # the report shows the record, so that is closed first; without its report a run is not complete
        self.folder.end("complete", **facts)
        build_report(self.path, options.overlay_subjects)
        random, terms = self.backbone.random_weights, self.backbone.card.weights
        notice = "" if random else terms_notice(terms.licence, terms.commercial)
        print_result(cases, result, options.metrics[0], random_weights=random, terms=notice)


def say(text: str) -> None:
    """Tell the user something, once; standard output is for the run folder alone."""
    if is_leader():
        print(text, file=sys.stderr, flush=True)


def config_text(settings: Settings) -> str:
    """The checked configuration as YAML."""
    nested: dict[str, Any] = asdict(settings.run)
    nested |= {section: asdict(getattr(settings, section)) for section in (*COMPONENTS, *FIXED)}
    return str(OmegaConf.to_yaml(OmegaConf.create(nested)))


def is_leader() -> bool:
    """False in the helper processes of distributed training."""
    ranks: Sequence[str] = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def _folder(door: str, settings: Settings, digest: str) -> RunFolder:
    told = os.environ.get(FOLDER_VARIABLE)
    if told and not is_leader():
        return RunFolder(Path(told), leader=False)
    rename = settings.run.name is None
    return RunFolder.locate(
        settings.runs_dir / door, settings.name, digest, rename=rename, leader=is_leader()
    )
