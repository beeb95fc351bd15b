"""Training patches: which are drawn, and how they become a batch. Plain data, so that workers can take it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

from umdseg.data.augment import augment
from umdseg.data.dataset import trainable
from umdseg.data.mirror import drawn_axes, mirrored, mirrored_affine
from umdseg.data.options import DataOptions
from umdseg.data.patches import Window, pick_value, sample
from umdseg.data.scans import READ_ERRORS, ScanStore
from umdseg.errors import UserError
from umdseg.seeds import generator
from umdseg.vocabulary import MODALITIES, Batch, Modality, Origin, Subject

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One training sample: what `Batch` holds, without the batch axis."""

    image: torch.Tensor
    label: torch.Tensor
    affine: torch.Tensor
    modality: str
    subject: str
    tracer: str
    asked: str
    annotated: torch.Tensor
    site: str = ""


class Draws(Dataset[T], Generic[T]):
    """Training samples, each drawn from the seed and its number alone; item n is the same whoever draws it.

    n may exceed the length: `EpochSampler` counts on through the epochs. A prepared scan found damaged
    while it is read is prepared again.

    Args:
        subjects: each with at least one labelled scan to train on.
        scans: their prepared scans.
        options: weights, foreground share, augmentation, length.
        window: (X, Y, Z) voxels of a patch.
        structures: what label values 1, 2, ... stand for.
        seed: the run's seed.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        scans: ScanStore,
        options: DataOptions,
        window: Window,
        structures: Sequence[str],
        seed: int,
    ) -> None:
        self.subjects, self.scans, self.options = list(subjects), scans, options
        self.window, self.structures, self.seed = window, tuple(structures), seed
        named = options.structure_weights
        self.weights = {i + 1: named[name] for i, name in enumerate(structures) if name in named}

    def __len__(self) -> int:
        return self.options.patches_per_epoch

    def __getitem__(self, index: int) -> T:
        try:
            return self.draw(index)
        except READ_ERRORS:
            if not self.scans.mend():
                raise
            return self.draw(index)

    @abstractmethod
    def draw(self, index: int) -> T:
        """The sample of this number."""

    def augmented(
        self, image: torch.Tensor, affine: torch.Tensor, modality: Modality, rng: np.random.Generator
    ) -> torch.Tensor:
        """A patch (1, X, Y, Z) as the options change it."""
        if not self.options.augment:
            return image
        scale = self.scans.preprocessing.intensity[modality]
        return augment(image, affine, modality, scale, self.options.augmentation, rng)

    def turned(self, rng: np.random.Generator) -> tuple[int, ...]:
        """The axes along which the next patch is mirrored."""
        return drawn_axes(rng) if self.options.augment and self.options.augmentation.mirror else ()

    def annotated(self, subject: Subject) -> torch.Tensor:
        """(K,) bool: whether a subject's labels tell about each structure."""
        return torch.tensor([subject.tells(name) for name in self.structures])

    def name(self, value: int | None) -> str:
        """The structure a label value stands for, "" for None."""
        return "" if value is None else self.structures[value - 1]


class PatchDataset(Draws[Item]):
    """Patches of one scan each.

    Drawn in turn: a subject, one of its modalities by weight, a structure present in that scan by weight
    (or none: a patch anywhere), one voxel of it, the window around it.
    """

    def draw(self, index: int) -> Item:
        """The patch of this number."""
        rng = generator(self.seed, "patch", index)
        subject = self.subjects[int(rng.integers(len(self.subjects)))]
        weights = trainable(subject, self.options.train_modalities)
        share = np.array(list(weights.values())) / sum(weights.values())
        modality = list(weights)[int(rng.choice(len(share), p=share))]
        scan = self.scans.get(subject, modality)
        value = pick_value(scan, rng, self.options.foreground, self.weights)
        image, label, affine = sample(scan, self.window, rng, value)
        image = self.augmented(image, affine, modality, rng)
        axes = self.turned(rng)
        image, label = mirrored(image, axes), mirrored(label, axes)
        affine = mirrored_affine(affine, self.window, axes)
        tracer = subject.scans[modality].tracer_or_sequence or ""
        told = self.annotated(subject)
        return Item(image, label, affine, modality, subject.id, tracer, self.name(value), told, subject.site)


def origins(subjects: Sequence[Subject], weights: Mapping[str, float], paired: bool = False) -> list[Origin]:
    """Where training scans come from, modality by modality: labelled ones; given together, all.

    Args:
        subjects: who is trained on.
        weights: data.train_modalities.
        paired: whether all scans of a subject are given together.
    """
    if paired:
        return [s.origin(m) for m in together(subjects, weights) for s in subjects if m in s.scans]
    return [s.origin(m) for m in MODALITIES for s in subjects if m in trainable(s, weights)]


def together(subjects: Sequence[Subject], weights: Mapping[str, float]) -> tuple[Modality, ...]:
    """Modalities of a paired sample: those with a weight above 0 that any of the subjects has."""
    held = {modality for subject in subjects for modality in subject.scans}
    return tuple(m for m in MODALITIES if m in held and weights.get(m, 0) > 0)


def check_reference(reference: str, fused: Sequence[Modality]) -> None:
    """Refuse a reference that nobody has: a weight for it (`ct: 1`) does not make its scans.

    Args:
        reference: data.reference.
        fused: what the training subjects have of the modalities that are fused.

    Raises:
        UserError: naming those that could be the reference.
    """
    if reference != "card" and reference not in fused:
        raise UserError(
            f"'{reference}', a scan that none of the training subjects has",
            where="data.reference",
            expected=f"{' or '.join(fused)}: the grid of a scan that is fused",
        )


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
        asked=[item.asked for item in items],
        annotated=torch.stack([item.annotated for item in items]),
        site=[item.site for item in items],
    )
