"""The nouns every room speaks: modalities, scans, subjects, prompts, batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch

Modality = Literal["ct", "pet", "mr"]
Units = Literal["HU", "SUV", "a.u."]
Stage = Literal["zero_shot", "adapted", "supervised"]
PromptKind = Literal["auto", "point", "clicks", "box", "text", "auto_point", "lasso", "scribble"]
Status = Literal[
    "ok",
    "empty_reference",
    "not_annotated",
    "modality_absent",
    "class_unknown",
    "prompt_unsupported",
    "failed",
]
Split = Literal["train", "val", "test", "all"]

MODALITIES: tuple[Modality, ...] = get_args(Modality)
STAGES: tuple[Stage, ...] = get_args(Stage)
PROMPT_KINDS: tuple[PromptKind, ...] = get_args(PromptKind)
STATUSES: tuple[Status, ...] = get_args(Status)
UNITS: dict[Modality, Units] = {"ct": "HU", "pet": "SUV", "mr": "a.u."}

Millimetres = tuple[float, float, float]


def by_reference(wanted: str = "ct") -> list[Modality]:
    """The modalities in the order in which they are the reference: the wanted one, then ct, mr, pet."""
    order: tuple[Modality, ...] = ("ct", "mr", "pet")
    return sorted(order, key=lambda modality: modality != wanted)


@dataclass(frozen=True)
class Scan:
    """One image of one subject.

    Attributes:
        image: NIfTI file.
        modality: ct, pet or mr.
        units: HU for CT, SUV (body weight) for PET, a.u. for MR.
        label: integer label map on the scan's own grid or, shared by a pair, on that of another scan of
            the subject; None when the scan has no reference.
        tracer_or_sequence: PET tracer ("FDG") or MR sequence ("T1").
    """

    image: Path
    modality: Modality
    units: Units
    label: Path | None = None
    tracer_or_sequence: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where an image comes from; what chooses among several adapters of one model.

    Attributes:
        modality: ct, pet or mr (or what a model calls several scans together); None where it is not known.
        tracer: PET tracer ("FDG") or MR sequence ("T1"), empty where it is not known.
        site: where it was scanned, empty where it is not known.
    """

    modality: str | None
    tracer: str = ""
    site: str = ""

    @classmethod
    def of(cls, given: Origin | str | None) -> Origin:
        """An origin as it is; a bare modality as an origin of which no more is known."""
        return given if isinstance(given, Origin) else cls(given)


@dataclass(frozen=True)
class Subject:
    """One person: scans by modality, all in one patient space (RAS+, millimetres).

    A subject may lack any modality. Scans of one subject never straddle a split.

    Attributes:
        id: its name, unique in the dataset.
        scans: scan by modality.
        split: train, val, test or empty.
        site: where it was scanned.
        dataset: name of its dataset.
        patient: the person, where several subjects (studies) are of one; empty means the subject itself.
        annotated: structures its labels tell about, where that is not all of the dataset's; of the others
            their zeros say nothing.
    """

    id: str
    scans: Mapping[Modality, Scan]
    split: str = "test"
    site: str = ""
    dataset: str = ""
    patient: str = ""
    annotated: tuple[str, ...] | None = None

    def reference(self, wanted: str = "ct") -> Modality:
        """The modality whose grid and label are the reference: the wanted one, else ct, else mr, else pet."""
        return next(m for m in by_reference(wanted) if m in self.scans)

    def tells(self, structure: str) -> bool:
        """Whether its labels tell about a structure, so that a voxel they leave out is without it."""
        return self.annotated is None or structure in self.annotated

    def origin(self, modality: Modality) -> Origin:
        """Where one of its scans comes from."""
        return Origin(modality, self.scans[modality].tracer_or_sequence or "", self.site)

    def other_images(self, modality: Modality) -> list[Path]:
        """Images of all scans but one; a label that the scan shares may lie on the grid of any of them."""
        return [scan.image for m, scan in self.scans.items() if m != modality]


@dataclass(frozen=True)
class Contour:
    """A line drawn by hand, in patient space: around what it marks, or through it.

    Attributes:
        points: its corners in patient millimetres (RAS+), in the order they were drawn.
        closed: True for a lasso, which marks what it surrounds in the plane it lies in (its last point is
            joined to its first); False for a scribble, which marks what it runs over.
        sign: 1 (the structure) or 0 (what is not it).
    """

    points: tuple[Millimetres, ...]
    closed: bool = True
    sign: int = 1

    @property
    def kind(self) -> PromptKind:
        """Lasso or scribble."""
        return "lasso" if self.closed else "scribble"


@dataclass(frozen=True)
class Prompt:
    """What the model is asked for, stated in patient space so one click fits every modality.

    Attributes:
        structure: canonical structure name.
        kind: how it is asked.
        points: click positions in patient millimetres (RAS+).
        signs: 1 (inside the structure) or 0 (outside), one per point.
        box: lower and upper corner in patient millimetres (RAS+).
        text: free text.
        contours: lassos and scribbles, in the order they were drawn.
    """

    structure: str
    kind: PromptKind = "auto"
    points: tuple[Millimetres, ...] = ()
    signs: tuple[int, ...] = ()
    box: tuple[Millimetres, Millimetres] | None = None
    text: str | None = None
    contours: tuple[Contour, ...] = ()

    def __post_init__(self) -> None:
        if len(self.points) != len(self.signs):
            counts = f"{len(self.points)} points but {len(self.signs)} signs"
            raise ValueError(f"prompt '{self.structure}': {counts}")


@dataclass
class Batch:
    """Preprocessed patches as a model sees them.

    Attributes:
        image: (B, 1, X, Y, Z) float32, RAS+, in the card's spacing and intensity scale; (B, M, X, Y, Z) of
            modalities given together.
        label: (B, 1, X, Y, Z) int16; 0 is background, i + 1 is `structures[i]`.
        affine: (B, 4, 4) float32, voxel index of the patch -> patient millimetres.
        modality: one per sample; `ct+pet` of modalities given together.
        subject: one per sample.
        tracer: tracer or sequence, one per sample.
        structures: canonical names the label values stand for.
        asked: the structure each patch was drawn for and holds, "" where it was drawn anywhere.
        annotated: (B, K) bool, whether the sample's label tells about each of `structures`; None = all do.
        site: where it was scanned, one per sample.
        present: (B, M) bool, which of modalities given together a sample has; None = one scan each.
    """

    image: torch.Tensor
    label: torch.Tensor
    affine: torch.Tensor
    modality: list[str]
    subject: list[str]
    tracer: list[str] = field(default_factory=list)
    structures: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)
    annotated: torch.Tensor | None = None
    site: list[str] = field(default_factory=list)
    present: torch.Tensor | None = None

    @property
    def origins(self) -> list[Origin]:
        """Where each sample comes from."""
        blank = [""] * len(self.modality)
        parts = zip(self.modality, self.tracer or blank, self.site or blank, strict=True)
        return [Origin(*part) for part in parts]

    def of(self, modality: str) -> Batch:
        """The samples of one modality."""
        return self.take([i for i, name in enumerate(self.modality) if name == modality])

    def take(self, which: Sequence[int]) -> Batch:
        """Some of the samples."""
        which = list(which)
        return Batch(
            self.image[which],
            self.label[which],
            self.affine[which],
            [self.modality[i] for i in which],
            [self.subject[i] for i in which],
            [self.tracer[i] for i in which] if self.tracer else [],
            self.structures,
            [self.asked[i] for i in which] if self.asked else [],
            None if self.annotated is None else self.annotated[which],
            [self.site[i] for i in which] if self.site else [],
            None if self.present is None else self.present[which],
        )
