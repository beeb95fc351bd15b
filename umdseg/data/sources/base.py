"""What every source of paired data does: list its subjects, then check them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from umdseg.data.checks import check_subjects
from umdseg.data.dataset import PairedDataset
from umdseg.data.options import DataOptions


class Source(ABC):
    """One dataset.

    Attributes:
        Options: the dataclass of its options.
        generated: its files are made by `load`, so before that they may be missing.
    """

    Options: ClassVar[type[DataOptions]] = DataOptions
    generated: ClassVar[bool] = False

    @abstractmethod
    def read(self, seed: int) -> PairedDataset:
        """List subjects, scans, labels and splits without opening an image.

        Raises:
            UserError: the layout is not this dataset's.
        """

    def load(self, seed: int) -> PairedDataset:
        """The dataset, its files and their headers checked.

        Raises:
            UserError: as `read`, or anything `umdseg.data.checks` refuses.
        """
        dataset = self.read(seed)
        check_subjects(dataset.subjects)
        return dataset
