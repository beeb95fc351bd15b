"""Training samples that hold all modalities of a subject at the same millimetres, for fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from umdseg.data.fov import Reference, reaches
from umdseg.data.geometry import Grid
from umdseg.data.io.nifti import read_grid
from umdseg.data.mirror import mirrored, mirrored_affine
from umdseg.data.options import DataOptions
from umdseg.data.patches import Window, pick_value, place, read_on
from umdseg.data.scans import ScanStore
from umdseg.data.store import CachedScan
from umdseg.data.training import Draws
from umdseg.seeds import generator
from umdseg.vocabulary import MODALITIES, Batch, Modality, Subject, by_reference


@dataclass
class PairedItem:
    """One sample: what `PairedBatch` holds, without the batch axis."""

    image: dict[Modality, torch.Tensor]
    present: torch.Tensor
    label: torch.Tensor
    affine: torch.Tensor
    subject: str
    tracer: dict[Modality, str]
    asked: str
    annotated: torch.Tensor
    site: str = ""
    labels: dict[Modality, torch.Tensor] = field(default_factory=dict)


@dataclass
class PairedBatch:
    """Preprocessed patches of several modalities on one lattice.

    Attributes:
        image: modality -> (B, 1, X, Y, Z) float32, RAS+, in the card's spacing and intensity scale; 0 where
            the subject lacks the modality or the scan does not reach.
        present: (B, M) bool, in the order of `image`: whether the subject has the modality and its field of
            view reaches the patch; the leading scan is present wherever the patch lies.
        label: (B, 1, X, Y, Z) int16; 0 is background, i + 1 is `structures[i]`.
        affine: (B, 4, 4) float32, voxel index of the patch -> patient millimetres, of all modalities.
        subject: one per sample.
        tracer: modality -> tracer or sequence, one per sample, "" where it is not known.
        structures: canonical names the label values stand for.
        asked: the structure each patch was drawn for and holds, "" where it was drawn anywhere.
        annotated: (B, K) bool, whether the sample's label tells about each of `structures`.
        site: where the subject was scanned, one per sample.
        labels: modality -> `label` as it lies on that scan, of scans that augmentation has moved: the one to
            use for samples in which that scan leads because those before it are left out.
    """

    image: dict[Modality, torch.Tensor]
    present: torch.Tensor
    label: torch.Tensor
    affine: torch.Tensor
    subject: list[str]
    tracer: dict[Modality, list[str]]
    structures: tuple[str, ...]
    asked: list[str]
    annotated: torch.Tensor
    site: list[str] = field(default_factory=list)
    labels: dict[Modality, torch.Tensor] = field(default_factory=dict)

    def joined(self) -> Batch:
        """The same as one batch whose image channels are the modalities."""
        names = list(self.image)
        # what tells one PET from another; CT and MR go by their modality
        tracers = self.tracer.get("pet", [""] * len(self.subject))
        return Batch(
            image=torch.cat(list(self.image.values()), dim=1),
            label=self.label,
            affine=self.affine,
            modality=["+".join(names)] * len(self.subject),
            subject=self.subject,
            tracer=tracers,
            structures=self.structures,
            asked=self.asked,
            annotated=self.annotated,
            site=self.site,
            present=self.present,
        )


class PairedPatches(Draws[PairedItem]):
    """The same window of every modality, on the lattice of the subject's reference grid.

    Drawn in turn: a subject, a structure present in its reference label by weight (or none: anywhere), one
    voxel of it, the window around it. The label is that of the reference scan or, where that has none, of
    the first labelled scan.

    Args:
        modalities: what each sample holds, in this order.
        reference: whose grid the windows lie on.
        subjects, scans, options, window, structures, seed: see `Draws`.
    """

    def __init__(
        self,
        modalities: Sequence[Modality],
        reference: Reference,
        subjects: Sequence[Subject],
        scans: ScanStore,
        options: DataOptions,
        window: Window,
        structures: Sequence[str],
        seed: int,
    ) -> None:
        super().__init__(subjects, scans, options, window, structures, seed)
        self.modalities, self.reference = tuple(modalities), reference
        self._grids: dict[str, Grid] = {}
        self._fields: dict[tuple[str, Modality], Grid] = {}

    def draw(self, index: int) -> PairedItem:
        """The sample of this number."""
        rng = generator(self.seed, "pair", index)
        subject = self.subjects[int(rng.integers(len(self.subjects)))]
        scans = {m: self.scans.get(subject, m) for m in needed(subject, self.modalities, self.reference)}
        source = label_source(subject, self.reference)
        value = pick_value(scans[source], rng, self.options.foreground, self.weights)
        target = self._window(subject, scans, source, value, rng)
        read = {m: read_on(scan, target) for m, scan in scans.items()}
        _, label, affine = read[source]
        image = {m: torch.zeros(1, *self.window) for m in self.modalities}
        there, labels = dict.fromkeys(self.modalities, False), {}
        for m in [m for m in self.modalities if m in read]:
            place = self._misplaced(subject, m, target, rng)
            part = read[m][0]
            if place is not target:
                part, labels[m] = read_on(scans[m], place)[0], read_on(scans[source], place)[1]
            image[m] = self.augmented(part, affine, m, rng)
            there[m] = m == self._leading(subject) or reaches(self._field(subject, m), place)
        axes = self.turned(rng)
        image = {m: mirrored(part, axes) for m, part in image.items()}
        labels = {m: mirrored(moved, axes) for m, moved in labels.items()}
        label, affine = mirrored(label, axes), mirrored_affine(affine, self.window, axes)
        # on another lattice than its own a thin structure may miss every voxel
        held = value is not None and bool((label == value).any())
        present = torch.tensor([there[m] for m in self.modalities])
        tracer = {m: (subject.scans[m].tracer_or_sequence or "") if m in read else "" for m in image}
        asked = self.name(value if held else None)
        told = self.annotated(subject)
        site = subject.site
        return PairedItem(image, present, label, affine, subject.id, tracer, asked, told, site, labels)

    def _leading(self, subject: Subject) -> Modality:
        """The modality that a fusion starts from (`Fused.order`): the reference, where that is among them."""
        order = [m for m in by_reference(self.reference.policy) if m in self.modalities]
        return next(m for m in order if m in subject.scans)

    def _field(self, subject: Subject, modality: Modality) -> Grid:
        """Grid of a scan as it is; the prepared one may be padded."""
        key = (subject.id, modality)
        if key not in self._fields:
            self._fields[key] = read_grid(subject.scans[modality].image, subject.id)
        return self._fields[key]

    def _misplaced(
        self, subject: Subject, modality: Modality, target: Grid, rng: np.random.Generator
    ) -> Grid:
        """A window a few millimetres beside its place; at its place for the scan that leads."""
        most = self.options.augmentation.misalign_mm if self.options.augment else 0.0
        if not most or modality == self._leading(subject):
            return target
        affine = target.affine.copy()
        affine[:3, 3] += rng.uniform(-most, most, 3)
        return Grid(target.shape, affine)

    def _window(
        self,
        subject: Subject,
        scans: Mapping[Modality, CachedScan],
        source: Modality,
        value: int | None,
        rng: np.random.Generator,
    ) -> Grid:
        if subject.id not in self._grids:
            self._grids[subject.id] = lattice(subject, scans, self.reference)
        return window_around(self._grids[subject.id], scans[source], self.window, value, rng)


def window_around(
    grid: Grid, source: CachedScan, window: Window, value: int | None, rng: np.random.Generator
) -> Grid:
    """A random window on a lattice that holds a structure of a scan.

    Args:
        grid: the lattice.
        source: whose labelled voxels.
        window: (X, Y, Z) voxels.
        value: label value; None: anywhere on the lattice.
        rng: decides everything.
    """
    voxel = None
    if value is not None:
        rows = source.foreground[value]
        drawn = rows[[int(rng.integers(len(rows)))]].astype(np.float64)
        world = source.grid.to_world(drawn)
        voxel = np.clip(np.round(grid.to_index(world)[0]), 0, np.array(grid.shape) - 1).astype(np.int32)
    start = place(grid.shape, window, voxel, rng)
    x, y, z = (first + size for first, size in zip(start, window, strict=True))
    return grid.crop(start, (x, y, z))


def lattice(subject: Subject, scans: Mapping[Modality, CachedScan], reference: Reference) -> Grid:
    """Where paired patches of a subject lie: the reference scan as prepared, or the card's common grid."""
    if reference.policy == "card":
        return reference.grid(subject)
    return scans[reference.modality(subject)].grid


def label_source(subject: Subject, reference: Reference) -> Modality:
    """The scan whose label a paired sample takes: the reference, or else the first labelled one."""
    labelled = [m for m in MODALITIES if m in subject.scans and subject.scans[m].label]
    return min(labelled, key=lambda m: m != reference.modality(subject))


def needed(subject: Subject, modalities: Sequence[Modality], reference: Reference) -> list[Modality]:
    """The scans that paired samples of a subject are read from."""
    also = (reference.modality(subject), label_source(subject, reference))
    return [m for m in MODALITIES if m in subject.scans and (m in modalities or m in also)]


def collate_pairs(items: Sequence[PairedItem], structures: tuple[str, ...]) -> PairedBatch:
    """Samples -> batch; `structures` are what label values 1, 2, ... stand for."""
    modalities = list(items[0].image)
    moved = [m for m in modalities if any(m in item.labels for item in items)]
    return PairedBatch(
        image={m: torch.stack([item.image[m] for item in items]) for m in modalities},
        present=torch.stack([item.present for item in items]),
        label=torch.stack([item.label for item in items]),
        affine=torch.stack([item.affine for item in items]),
        subject=[item.subject for item in items],
        tracer={m: [item.tracer[m] for item in items] for m in modalities},
        structures=structures,
        asked=[item.asked for item in items],
        annotated=torch.stack([item.annotated for item in items]),
        site=[item.site for item in items],
        labels={m: torch.stack([item.labels.get(m, item.label) for item in items]) for m in moved},
    )


class ValidationPairs(PairedPatches):
    """Places of the validation subjects, the same every time, with all modalities of each; not augmented."""

    def __getitem__(self, index: int) -> PairedItem:
        """The pair of this number: never one that is drawn in training."""
        return super().__getitem__(-1 - index)
