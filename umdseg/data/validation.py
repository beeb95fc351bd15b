"""Validation patches: the same every time, and at the same millimetres in every modality of a subject."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from umdseg.data.fov import Reference
from umdseg.data.options import DataOptions
from umdseg.data.paired import label_source, lattice, window_around
from umdseg.data.patches import Window, pick_value, read_on
from umdseg.data.scans import ScanStore
from umdseg.data.training import Draws, Item
from umdseg.seeds import generator
from umdseg.vocabulary import MODALITIES, Modality, Subject


class ValidationPatches(Draws[Item]):
    """Places of the validation subjects in turn, each on one of its structures, in every labelled modality.

    So what differs between the modalities' scores is the modality alone.

    Args:
        reference: whose grid the windows lie on.
        places: how many; a subject with several modalities makes as many patches of each.
        subjects, scans, options, window, structures, seed: see `Draws`; nothing is augmented.
    """

    def __init__(
        self,
        reference: Reference,
        places: int,
        subjects: Sequence[Subject],
        scans: ScanStore,
        options: DataOptions,
        window: Window,
        structures: Sequence[str],
        seed: int,
    ) -> None:
        super().__init__(subjects, scans, options, window, structures, seed)
        self.reference = reference
        turns = [(n, self.subjects[n % len(self.subjects)]) for n in range(places)]
        self.items = [(n, s, m) for n, s in turns for m in labelled(s, options.modalities)]

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, index: int) -> Item:
        """The patch of this number."""
        number, subject, modality = self.items[index]
        rng = generator(self.seed, "validation", number)
        source = label_source(subject, self.reference)
        first = self.scans.get(subject, source)
        value = pick_value(first, rng, 1.0, self.weights)
        at = self.reference.modality(subject)
        grid = lattice(subject, {at: self.scans.get(subject, at)}, self.reference)
        target = window_around(grid, first, self.window, value, rng)
        image, label, affine = read_on(self.scans.get(subject, modality), target)
        tracer, told = subject.scans[modality].tracer_or_sequence or "", self.annotated(subject)
        asked = self.name(value)
        return Item(image, label, affine, modality, subject.id, tracer, asked, told, subject.site)


def labelled(subject: Subject, modalities: Collection[str]) -> list[Modality]:
    """The labelled scans a subject has among some modalities."""
    return [m for m in MODALITIES if m in modalities and m in subject.scans and subject.scans[m].label]
