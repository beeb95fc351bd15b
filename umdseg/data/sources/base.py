"""What every source of paired data does: list its subjects, split them, then check them."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from umdseg.data.checks import check_subjects
from umdseg.data.dataset import PairedDataset
from umdseg.data.options import DataOptions
from umdseg.data.sources.derived import Derived, build
from umdseg.data.splits import deal


@dataclass
class RootOptions(DataOptions):
    """Options of a dataset that lies in one folder.

    Attributes:
        root: that folder.
    """

    root: str | None = None


@dataclass(frozen=True)
class Listing:
    """What a source finds in a folder.

    Attributes:
        dataset: subjects with the split their dataset gives them.
        derived: files that umdseg makes once into its cache; scans may name them as if they were there.
        notes: one sentence each for what a user should know, such as who was left out.
    """

    dataset: PairedDataset
    derived: tuple[Derived, ...] = ()
    notes: tuple[str, ...] = ()


class Source(ABC):
    """One dataset.

    Attributes:
        Options: the dataclass of its options.
        generated: files of it are made by `load`, so before that they may be missing.
    """

    Options: ClassVar[type[DataOptions]] = DataOptions
    generated: ClassVar[bool] = False

    def __init__(self, options: DataOptions) -> None:
        self.options = options

    @abstractmethod
    def listing(self, seed: int) -> Listing:
        """List subjects, scans, labels and published splits without opening an image.

        Raises:
            UserError: the layout is not this dataset's.
        """

    def read(self, seed: int) -> PairedDataset:
        """The subjects in their splits, without opening an image.

        Raises:
            UserError: as `listing`, or a split that cannot be made.
        """
        return deal(self.listing(seed).dataset, self.options, seed)

    def load(self, seed: int) -> PairedDataset:
        """The dataset with every file in place, its headers checked.

        Raises:
            UserError: as `read`, or anything `umdseg.data.checks` refuses.
        """
        found = self.listing(seed)
        dataset = deal(found.dataset, self.options, seed)
        for note in found.notes:
            print(f"data={self.options.name}: {note}", file=sys.stderr, flush=True)
        build(found.derived)
        check_subjects(dataset.subjects)
        return dataset
