"""Training patches: which are drawn, and how they become a batch. Plain data, so that workers can take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from umdseg.data.augment import vary_intensity
from umdseg.data.cache import CachedScan, PreparedCache
from umdseg.data.options import DataOptions
from umdseg.data.patches import Window, pick_value, sample
from umdseg.data.preprocess import Preprocessing
from umdseg.seeds import generator
from umdseg.vocabulary import Batch, Modality, Subject


@dataclass(frozen=True)
class Item:
    """One training sample: what `Batch` holds, without the batch axis."""

    image: torch.Tensor
    label: torch.Tensor
    affine: torch.Tensor
    modality: str
    subject: str
    tracer: str


@dataclass(frozen=True)
class ScanStore:
    """Prepared scans for one preprocessing and one list of structures.

    Attributes:
        cache: where they lie.
        preprocessing: the card's numbers.
        ids: label ids that become 1, 2, ... in this order.
        allowed: all ids a label may hold.
    """

    cache: PreparedCache
    preprocessing: Preprocessing
    ids: Sequence[int]
    allowed: Sequence[int]

    def get(self, subject: Subject, modality: Modality) -> CachedScan:
        """One prepared scan, prepared now if the cache has none."""
        scan = subject.scans[modality]
        others = subject.other_images(modality)
        return self.cache.get(scan, subject.id, self.preprocessing, self.ids, self.allowed, others)


class PatchDataset(Dataset[Item]):
    """Patches of the training subjects; item n is always the same patch, whoever draws it.

    Drawn in turn, each from the seed and n alone: a subject, one of its modalities by weight, a
    structure present in that scan (or none: a patch anywhere), one voxel of it, the window around it.
    n may exceed the length: `EpochSampler` counts on through the epochs.

    Args:
        subjects: each with at least one scan to train on.
        scans: their prepared scans.
        options: modality weights, foreground share, augmentation, length.
        window: (X, Y, Z) voxels of a patch.
        seed: the run's seed.
    """

    def __init__(
        self, subjects: Sequence[Subject], scans: ScanStore, options: DataOptions, window: Window, seed: int
    ) -> None:
        self.subjects, self.scans, self.options = list(subjects), scans, options
        self.window, self.seed = window, seed
        self._open: dict[tuple[str, Modality], CachedScan] = {}

    def __len__(self) -> int:
        return self.options.patches_per_epoch

    def __getitem__(self, index: int) -> Item:
        rng = generator(self.seed, "patch", index)
        subject = self.subjects[int(rng.integers(len(self.subjects)))]
        weights = trainable(subject, self.options.train_modalities)
        share = np.array(list(weights.values())) / sum(weights.values())
        modality = list(weights)[int(rng.choice(len(share), p=share))]
        scan = self._scan(subject, modality)
        image, label, affine = sample(scan, self.window, rng, pick_value(scan, rng, self.options.foreground))
        if self.options.augment:
            image = vary_intensity(image, rng)
        tracer = subject.scans[modality].tracer_or_sequence or ""
        return Item(image, label, affine, modality, subject.id, tracer)

    def _scan(self, subject: Subject, modality: Modality) -> CachedScan:
        key = (subject.id, modality)
        if key not in self._open:
            self._open[key] = self.scans.get(subject, modality)
        return self._open[key]


def trainable(subject: Subject, weights: Mapping[str, float]) -> dict[Modality, float]:
    """Sampling weights of the labelled scans a subject has among the training modalities."""
    labelled = (m for m, scan in sorted(subject.scans.items()) if scan.label)
    return {m: weights[m] for m in labelled if weights.get(m, 0) > 0}


def collate(items: Sequence[Item], structures: tuple[str, ...]) -> Batch:
    """Samples -> batch; `structures` are what label values 1, 2, ... stand for."""
    return Batch(
        image=torch.stack([item.image for item in items]),
        label=torch.stack([item.label for item in items]),
        affine=torch.stack([item.affine for item in items]),
        modality=[item.modality for item in items],
        subject=[item.subject for item in items],
        tracer=[item.tracer for item in items],
        structures=structures,
    )
