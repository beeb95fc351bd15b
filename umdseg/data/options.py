"""What every dataset lets the user choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from umdseg.errors import UserError, unknown
from umdseg.vocabulary import MODALITIES


def _all_modalities() -> list[str]:
    return ["ct", "pet", "mr"]


def _all_equal() -> dict[str, float]:
    return {"pet": 1.0, "mr": 1.0, "ct": 1.0}


@dataclass
class DataOptions:
    """Options shared by all sources; a source's own options derive from these.

    Attributes:
        name: registered name of the source.
        split: train, val, test or all; what evaluate.py scores.
        modalities: evaluated modalities.
        train_modalities: sampling weight per modality in training; CT among them is replay against
            forgetting, 0 switches a modality off.
        structures: structures used; None means all of the dataset.
        batch_size: patches per step.
        foreground: share of patches placed on a labelled voxel (structure first, then voxel, so that
            small organs are seen as often as large ones); the rest lie anywhere.
        patches_per_epoch: length of one epoch.
        workers: loader processes.
        cache_dir: folder of preprocessed scans; None means $UMDSEG_CACHE or ~/.cache/umdseg.
        shots: train on the first n subjects of a seeded order only (smaller n are subsets of larger).
        augment: small random intensity scale, shift and gamma in training.
    """

    name: str = ""
    split: str = "test"
    modalities: list[str] = field(default_factory=_all_modalities)
    train_modalities: dict[str, float] = field(default_factory=_all_equal)
    structures: list[str] | None = None
    batch_size: int = 2
    foreground: float = 0.75
    patches_per_epoch: int = 200
    workers: int = 0
    cache_dir: str | None = None
    shots: int | None = None
    augment: bool = True

    def validate(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: an unknown modality, an empty list, a name twice, or a number outside its range.
        """
        refuse_repeats("data.modalities", self.modalities)
        refuse_repeats("data.train_modalities", list(self.train_modalities))
        if self.structures is not None:
            refuse_repeats("data.structures", self.structures)
        for key in ("modalities", "train_modalities"):
            for modality in getattr(self, key):
                if modality not in MODALITIES:
                    raise unknown("modality", modality, MODALITIES, where=f"data.{key}")
        _between("data.foreground", self.foreground, 0, 1)
        _at_least("data.batch_size", self.batch_size, 1)
        _at_least("data.patches_per_epoch", self.patches_per_epoch, 1)
        _at_least("data.workers", self.workers, 0)
        _at_least("data.shots", 1 if self.shots is None else self.shots, 1)
        for modality, weight in self.train_modalities.items():
            _at_least(f"data.train_modalities.{modality}", weight, 0)


def refuse_repeats(where: str, names: Sequence[str]) -> None:
    """Refuse a list that is empty or names something twice.

    Raises:
        UserError: naming the config path.
    """
    if not names:
        raise UserError("the list is empty", where=where, expected="at least one name")
    repeated = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if repeated is not None:
        raise UserError(f"'{repeated}' is named twice", where=where, expected="every name once")


def _between(where: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"{value} is out of range", where=where, expected=f"{low} to {high}")


def _at_least(where: str, value: float, low: float) -> None:
    if not value >= low:
        raise UserError(f"{value} is out of range", where=where, expected=f"{low} or more")
