"""Paired data for training (patches) and evaluation (whole cases)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from umdseg.data.cache import PreparedCache
from umdseg.data.dataset import PairedDataset, few_shots, trainable
from umdseg.data.fov import Reference
from umdseg.data.intensity import heed
from umdseg.data.io.nifti import read_grid, read_image, read_label
from umdseg.data.mirror import refuse_sides
from umdseg.data.options import DataOptions
from umdseg.data.paired import PairedItem, PairedPatches, ValidationPairs, collate_pairs, lattice, needed
from umdseg.data.patches import Patch, Window, read_on, window_grid
from umdseg.data.preprocess import Prepared, Preprocessing, prepare_image, prepare_label
from umdseg.data.sampler import EpochSampler, StepsDone
from umdseg.data.scans import ScanStore
from umdseg.data.store import CachedScan
from umdseg.data.training import Draws, Item, PatchDataset, collate, origins, together
from umdseg.data.validation import ValidationPatches, labelled
from umdseg.errors import UserError, unknown
from umdseg.progress import track
from umdseg.vocabulary import MODALITIES, Millimetres, Modality, Origin, Subject

T = TypeVar("T")


class PairedDataModule(LightningDataModule):
    """Serves a paired dataset to one model.

    Args:
        dataset: subjects and structures.
        options: sampling, batch size, cache.
        preprocessing: the card's numbers.
        window: (X, Y, Z) voxels of a patch.
        structures: structures trained on, in the order of label values 1, 2, ...
        seed: the run's seed.
    """

    def __init__(
        self,
        dataset: PairedDataset,
        options: DataOptions,
        preprocessing: Preprocessing,
        window: Window,
        structures: Sequence[str],
        seed: int,
    ) -> None:
        super().__init__()
        options.validate()
        self.dataset, self.preprocessing = dataset, preprocessing
        self.window, self.structures, self.seed = window, dataset.select(structures), seed
        if options.augment and options.augmentation.mirror:
            refuse_sides(self.structures)
        self.options = replace(options, structure_weights=self._weights(options.structure_weights))
        self._ids = [dataset.structures[name] for name in self.structures]
        self._allowed = list(dataset.structures.values())
        self.reference = Reference(options.reference, preprocessing.spacing)
        cache = PreparedCache(options.cache_dir, options.cache_gb)
        self._places = 0
        self._scans = ScanStore(cache, preprocessing, self._ids, self._allowed)

    def _weights(self, given: Mapping[str, float]) -> dict[str, float]:
        """Sampling weights by the structures' names in the dataset."""
        names = self.dataset.select(list(given)) if given else ()
        odd = next((name for name in names if name not in self.structures), None)
        if odd is not None:
            raise unknown("trained structure", odd, self.structures, where="data.structure_weights")
        return dict(zip(names, given.values(), strict=True))

    def training_subjects(self) -> list[Subject]:
        """Training subjects (the first `shots` of them) with at least one labelled scan to train on.

        Raises:
            UserError: the train split is empty, or nobody in it has a labelled training modality.
        """
        subjects = self._shots()
        usable = sorted((s for s in subjects if self.training_modalities(s)), key=lambda s: s.id)
        if not usable:
            wanted = ", ".join(m for m, w in self.options.train_modalities.items() if w > 0) or "none"
            held = sorted({m for s in subjects for m in s.scans})
            raise UserError(
                f"none of the {len(subjects)} training subjects has a labelled scan to train on ({wanted})",
                where="data.train_modalities",
                expected=f"modalities these subjects have ({', '.join(held)}), with labels",
            )
        return usable

    def _shots(self) -> list[Subject]:
        options = self.options
        return few_shots(self.dataset.of("train"), options.shots, self.seed, options.train_modalities)

    def training_modalities(self, subject: Subject) -> dict[Modality, float]:
        """Sampling weights of the labelled scans a subject has among the training modalities."""
        return trainable(subject, self.options.train_modalities)

    def trained_modalities(self) -> list[str]:
        """Modalities with a weight above 0 and at least one labelled training scan.

        Raises:
            UserError: as `training_subjects`.
        """
        found = {m for s in self.training_subjects() for m in self.training_modalities(s)}
        return [m for m in MODALITIES if m in found]

    def target_modalities(self) -> list[Modality]:
        """Modalities trained on beside the reference of the subject they are of; all, where there are none.

        Raises:
            UserError: as `training_subjects`.
        """
        subjects = self.training_subjects()
        pairs = {m for s in subjects for m in self.training_modalities(s) if m != self.reference.modality(s)}
        return [m for m in MODALITIES if m in pairs] or [
            m for m in MODALITIES if m in self.trained_modalities()
        ]

    def training_origins(self) -> list[Origin]:
        """Where the training scans come from, modality by modality: labelled ones; given together, all.

        Raises:
            UserError: as `training_subjects`.
        """
        options = self.options
        return origins(self.training_subjects(), options.train_modalities, options.paired)

    def prepare_data(self) -> None:
        """Fill the cache (one process of a node; the others find it filled)."""
        for text in self.untrained():
            print(text, file=sys.stderr, flush=True)
        scans = [(s, m) for s in self.training_subjects() for m in self._prepared(s)]
        if self._places:
            scans += [(s, m) for s in self.validation_subjects() for m in s.scans]
        for subject, modality in track(scans, "prepare scans", "scan"):
            findings = self.cached(subject, modality).findings
            heed(findings, subject.scans[modality], subject, self.options.bad_intensity)

    def _prepared(self, subject: Subject) -> list[Modality]:
        """The scans of a training subject that patches are read from."""
        if self.options.paired:
            return needed(subject, self.fused_modalities(), self.reference)
        return list(self.training_modalities(subject))

    def fused_modalities(self) -> tuple[Modality, ...]:
        """Modalities of a paired sample: those trained on which any training subject has."""
        return together(self.training_subjects(), self.options.train_modalities)

    def untrained(self) -> list[str]:
        """One plain sentence for each wanted modality that nobody can be trained on, and why."""
        # a paired sample takes a scan without a label, too
        trained = self.fused_modalities() if self.options.paired else self.trained_modalities()
        subjects = self._shots()
        wanted = [m for m in MODALITIES if self.options.train_modalities.get(m, 0) > 0 and m not in trained]
        held = {m: "labels" if any(m in s.scans for s in subjects) else "a scan" for m in wanted}
        return [
            f"{m}: 0 of {len(subjects)} training subjects have {what}; not trained on"
            for m, what in held.items()
        ]

    def train_dataloader(self) -> DataLoader[Item] | DataLoader[PairedItem]:
        """Batches of patches; see `PatchDataset` and `PairedPatches` for what is drawn."""
        options = self._balanced()
        drawn = (self.training_subjects(), self._scans, options, self.window, self.structures, self.seed)
        if self.options.paired:
            return self._loader(PairedPatches(self.fused_modalities(), self.reference, *drawn), collate_pairs)
        return self._loader(PatchDataset(*drawn), collate)

    def _balanced(self) -> DataOptions:
        """Options whose structure weights say what `balance` asks for."""
        if self.options.balance == "none":
            return self.options
        scans = ((s, m) for s in self.training_subjects() for m in self.training_modalities(s))
        held = Counter(value for s, m in scans for value in self.cached(s, m).foreground)
        given = self.options.structure_weights
        weights = {
            name: given.get(name, 1.0) / held[value]
            for value, name in enumerate(self.structures, 1)
            if held[value]
        }
        return replace(self.options, structure_weights=weights)

    def validation_subjects(self) -> list[Subject]:
        """Subjects of the split `val` with a labelled scan of a modality that is evaluated.

        Raises:
            UserError: there is nobody to validate on.
        """
        subjects = [s for s in self.dataset.subjects if s.split == "val"]
        usable = [s for s in subjects if labelled(s, self.options.modalities)]
        if not usable:
            some = "with a labelled scan " if subjects else ""
            raise UserError(
                f"no subject of dataset '{self.dataset.name}' {some}is in split 'val'",
                where="fit.validate_every",
                expected="data.val_share=0.2, which sets training patients aside, subjects with split `val` "
                "in the manifest, or fit.validate_every=0",
            )
        return sorted(usable, key=lambda s: s.id)

    def validated(self, places: int) -> PairedDataModule:
        """Let `val_dataloader` serve this many places of the validation subjects; returns itself."""
        self._places = places
        return self

    def val_dataloader(self) -> DataLoader[Item] | DataLoader[PairedItem] | list[object]:
        """The same patches every time, every place in all modalities of its subject; see `validated`."""
        if not self._places:
            return []
        if self.options.paired:
            still = replace(self.options, augment=False, patches_per_epoch=self._places, foreground=1.0)
            fused = self.fused_modalities()
            people = [s for s in self.validation_subjects() if set(fused) & set(s.scans)]
            pairs = ValidationPairs(
                fused, self.reference, people, self._scans, still, self.window, self.structures, self.seed
            )
            gather = partial(collate_pairs, structures=self.structures)
            return DataLoader(pairs, batch_size=1, collate_fn=gather)
        patches = ValidationPatches(
            self.reference,
            self._places,
            self.validation_subjects(),
            self._scans,
            self.options,
            self.window,
            self.structures,
            self.seed,
        )
        # one by one: subjects may differ in how many modalities they have
        return DataLoader(patches, batch_size=1, collate_fn=partial(collate, structures=self.structures))

    def _loader(self, patches: Draws[T], gather: Callable[..., object]) -> DataLoader[T]:
        return DataLoader(
            patches,
            batch_size=self.options.batch_size,
            sampler=EpochSampler(patches, len(patches), self._steps_done),
            num_workers=self.options.workers,
            persistent_workers=self.options.workers > 0,
            collate_fn=partial(gather, structures=self.structures),
        )

    def _steps_done(self) -> StepsDone | None:
        """What the sampler counts from when Lightning trains: steps of a resumed run are not drawn again."""
        if self.trainer is None:
            return None
        per_step = self.options.batch_size * self.trainer.accumulate_grad_batches
        return StepsDone(self.trainer.global_step, per_step)

    def cases(self, split: str) -> list[Subject]:
        """Whole subjects of a split.

        Raises:
            UserError: the split is unknown or empty.
        """
        return self.dataset.of(split)

    def cached(self, subject: Subject, modality: Modality) -> CachedScan:
        """One prepared scan in the cache, prepared now if it is not there."""
        return self._scans.get(subject, modality)

    def paired(self, subject: Subject) -> dict[Modality, tuple[Prepared, torch.Tensor | None]]:
        """Whole prepared scans of a subject: image and label (1, X, Y, Z) int16 (None without a label)."""
        return {modality: self._whole(subject, modality) for modality in subject.scans}

    def paired_patch(self, subject: Subject, centre_mm: Millimetres) -> dict[Modality, Patch]:
        """One window of the same millimetres in every modality the subject has.

        The window lies on the lattice of the reference grid, so that one is read as it is; the
        others are resampled onto it. All share one affine.

        Args:
            subject: whose scans.
            centre_mm: patient millimetres (RAS+); the window's centre is within half a voxel of it.
        """
        scans = {modality: self.cached(subject, modality) for modality in subject.scans}
        target = window_grid(lattice(subject, scans, self.reference), centre_mm, self.window)
        return {modality: read_on(scan, target) for modality, scan in scans.items()}

    def _whole(self, subject: Subject, modality: Modality) -> tuple[Prepared, torch.Tensor | None]:
        scan = subject.scans[modality]
        volume = read_image(scan.image, subject.id)
        prepared = prepare_image(volume, modality, self.preprocessing)
        if scan.label is None:
            return prepared, None
        others = (read_grid(path, subject.id) for path in subject.other_images(modality))
        label = read_label(scan.label, volume.grid, self._allowed, subject.id, others)
        return prepared, prepare_label(label, self._ids, prepared.grid)
