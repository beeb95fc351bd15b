"""What every dataset lets the user choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from umdseg.data.augment import AugmentationOptions
from umdseg.errors import UserError, unknown
from umdseg.vocabulary import MODALITIES

REFERENCES = (*MODALITIES, "card")
BAD_INTENSITY = ("refuse", "warn")
BALANCES = ("none", "scans")


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
        structure_weights: how often a structure is drawn against one of weight 1, which is what those not
            named have; 0 for never ({tumour: 4}).
        paired: each training sample holds all modalities of a subject at the same millimetres, for fusion.
        cache_dir: folder of preprocessed scans; None means $UMDSEG_CACHE or ~/.cache/umdseg.
        cache_gb: gigabytes (1e9 bytes) that preprocessed scans may take there; beyond it those not used for
            the longest time are removed, but none that a running process uses. None = no limit.
        shots: train on the first n subjects of a seeded order only (smaller n are subsets of larger).
        augment: change training patches a little at random.
        augmentation: how, and how far (see `umdseg.data.augment`).
        balance: how structures share the patches placed on one: `none`, all that a scan holds alike; `scans`,
            inversely to how many training scans hold them, so that rare ones are drawn as often as common
            ones. `structure_weights` count on top.
        reference: whose grid first clicks, paired patches and common scores are on: ct, pet, mr (where a
            subject lacks it ct, mr, pet, in this order) or card (the model's spacing over the common field
            of view).
        bad_intensity: refuse stops at a scan whose values cannot be what its units say; warn goes on.
        folds: deal the subjects into this many parts, by patient (see `umdseg.data.splits`); None keeps
            the split the dataset itself gives.
        fold: the part that is tested; the others train.
        val_share: share of the training patients (sites, if split by site) set aside for validation.
        split_by: subject, or site to keep whole sites together.
        published_folds: the dataset itself comes with folds, so `fold` means something without `folds`.
    """

    published_folds: ClassVar[bool] = False

    name: str = ""
    split: str = "test"
    modalities: list[str] = field(default_factory=_all_modalities)
    train_modalities: dict[str, float] = field(default_factory=_all_equal)
    structures: list[str] | None = None
    batch_size: int = 2
    foreground: float = 0.75
    patches_per_epoch: int = 200
    workers: int = 0
    structure_weights: dict[str, float] = field(default_factory=dict)
    paired: bool = False
    cache_dir: str | None = None
    cache_gb: float | None = None
    shots: int | None = None
    augment: bool = True
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    balance: str = "none"
    reference: str = "ct"
    bad_intensity: str = "refuse"
    folds: int | None = None
    fold: int = 0
    val_share: float = 0.0
    split_by: str = "subject"

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
        for key, choices in (
            ("reference", REFERENCES),
            ("bad_intensity", BAD_INTENSITY),
            ("balance", BALANCES),
        ):
            if getattr(self, key) not in choices:
                raise unknown("choice", getattr(self, key), choices, where=f"data.{key}")
        _between("data.foreground", self.foreground, 0, 1)
        _at_least("data.batch_size", self.batch_size, 1)
        _at_least("data.patches_per_epoch", self.patches_per_epoch, 1)
        _at_least("data.workers", self.workers, 0)
        _at_least("data.shots", 1 if self.shots is None else self.shots, 1)
        for modality, weight in self.train_modalities.items():
            _at_least(f"data.train_modalities.{modality}", weight, 0)
        for structure, weight in self.structure_weights.items():
            _at_least(f"data.structure_weights.{structure}", weight, 0)
        _at_least("data.cache_gb", 0 if self.cache_gb is None else self.cache_gb, 0)
        self.augmentation.validate()
        self.validate_split()

    def validate_split(self) -> None:
        """Refuse folds and shares that make no sense.

        Raises:
            UserError: naming the config path.
        """
        if self.split_by not in ("subject", "site"):
            raise unknown("unit of splits", self.split_by, ("subject", "site"), where="data.split_by")
        _at_least("data.folds", 2 if self.folds is None else self.folds, 2)
        if self.folds is None and not self.published_folds and self.fold:
            what, expected = f"fold {self.fold} of no folds", "data.folds=N as well"
            raise UserError(what, where="data.fold", expected=expected)
        _between("data.fold", self.fold, 0, self.fold if self.folds is None else self.folds - 1)
        if not 0 <= self.val_share < 1:
            expected = "from 0 up to, but not, 1"
            raise UserError(f"{self.val_share} is out of range", where="data.val_share", expected=expected)
        if self.split_by == "site" and self.folds is None and not self.val_share:
            expected = "data.folds=N or data.val_share=X, which hold out whole sites"
            raise UserError("nothing is split by site", where="data.split_by", expected=expected)


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
