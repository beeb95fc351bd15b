"""A paired dataset: subjects with their scans, and the structures their labels name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from umdseg.anatomy import canonical
from umdseg.data.hashes import cache_root, file_hash
from umdseg.data.options import refuse_repeats
from umdseg.errors import UserError, unknown
from umdseg.files import sha256_value
from umdseg.progress import track
from umdseg.seeds import derive
from umdseg.vocabulary import Modality, Split, Subject


@dataclass(frozen=True)
class PairedDataset:
    """Subjects and structures of one dataset.

    Attributes:
        name: dataset name as it stands in the case table.
        subjects: all subjects, each in one split.
        structures: canonical structure name -> id in the label maps.
        root: folder that paths are relative to in the fingerprint; None = the files' common folder.
    """

    name: str
    subjects: tuple[Subject, ...]
    structures: Mapping[str, int]
    root: Path | None = None

    def of(self, split: str) -> list[Subject]:
        """Subjects of a split; `all` means every subject, also those without a split.

        Raises:
            UserError: no such split, or nobody is in it.
        """
        if split not in get_args(Split):
            raise unknown("split", split, get_args(Split), where="data.split")
        chosen = [s for s in self.subjects if split in ("all", s.split)]
        if not chosen:
            held = ", ".join(sorted({s.split or "(none)" for s in self.subjects}))
            expected = f"a split that holds subjects ({held}), data.split=all, or data.folds=5"
            if split == "train":
                # what is trained on cannot be chosen, so another split is no way out
                expected = f"training subjects (there are: {held}); "
                expected += "fill the `split` column of the manifest (train|val|test), or data.folds=5"
            raise UserError(
                f"no subject of dataset '{self.name}' is in split '{split}'",
                where=None if split == "train" else "data.split",
                expected=expected,
            )
        return chosen

    def select(self, names: Sequence[str] | None) -> tuple[str, ...]:
        """The dataset's structures, or those of them that are asked for, by any spelling anatomy knows.

        Raises:
            UserError: the dataset has no structures; or no name is given, one that is not among them, or
                one twice.
        """
        if not self.structures:
            raise UserError(
                f"dataset '{self.name}' names no structures",
                expected="beside the manifest a YAML such as `structures: {liver: 1, spleen: 2}`",
            )
        if names is None:
            return tuple(self.structures)
        chosen = [self._known(name) for name in names]
        refuse_repeats("data.structures", chosen)
        return tuple(chosen)

    def _known(self, name: str) -> str:
        if name in self.structures:
            return name
        try:
            found = canonical(name)
        except UserError:
            found = name
        if found not in self.structures:
            kind = f"structure in dataset '{self.name}'"
            raise unknown(kind, name, self.structures, where="data.structures")
        return found

    def fingerprint(self, cache_dir: str | Path | None = None) -> str:
        """SHA-256 over structures, subjects, patients, splits and the content of every file."""
        paths = {p: None for s in self.subjects for c in s.scans.values() for p in (c.image, c.label) if p}
        for path in track(list(paths), "read files for the fingerprint", "file"):
            file_hash(path, cache_dir)
        rows = []
        for subject in sorted(self.subjects, key=lambda s: s.id):
            for modality, scan in sorted(subject.scans.items()):
                files = [self._hashed(path, cache_dir) for path in (scan.image, scan.label)]
                told: list[object] = [subject.split, subject.site, scan.tracer_or_sequence]
                told += [list(subject.annotated)] if subject.annotated is not None else []
                # intervals are over patients
                told += [{"patient": subject.patient}] if subject.patient else []
                rows.append([subject.id, modality, *told, *files])
        return sha256_value({"name": self.name, "structures": dict(self.structures), "rows": rows})

    def _hashed(self, path: Path | None, cache_dir: str | Path | None) -> list[str] | None:
        if path is None:
            return None
        root = self.root or self._common()
        made = path.is_relative_to(cache_root(cache_dir)) and not path.is_relative_to(root)
        # where the cache lies says nothing about the data
        relative = path.name if made else Path(os.path.relpath(path, root)).as_posix()
        return [relative, file_hash(path, cache_dir)]

    def _common(self) -> str:
        scans = [scan for subject in self.subjects for scan in subject.scans.values()]
        files = [path for scan in scans for path in (scan.image, scan.label) if path]
        return os.path.commonpath([path.parent for path in files])


def trainable(subject: Subject, weights: Mapping[str, float]) -> dict[Modality, float]:
    """Sampling weights of the labelled scans a subject has among the training modalities."""
    labelled = (m for m, scan in sorted(subject.scans.items()) if scan.label)
    return {m: weights[m] for m in labelled if weights.get(m, 0) > 0}


def few_shots(
    subjects: Sequence[Subject], shots: int | None, seed: int, weights: Mapping[str, float]
) -> list[Subject]:
    """The first `shots` subjects of a seeded order; fewer shots are a subset of more.

    The order is one for the whole dataset, so the shots of two folds differ only by whom the folds test.
    A shot is somebody who can be trained on: with a labelled scan of a modality with a weight above 0.

    Args:
        subjects: the training subjects.
        shots: how many; None = all, those who cannot be trained on among them.
        seed: the run's seed.
        weights: data.train_modalities.

    Raises:
        UserError: fewer can be trained on than are asked for: scores would stand under the wrong number.
    """
    if shots is None:
        return list(subjects)
    usable = [s for s in subjects if trainable(s, weights)]
    if usable and len(usable) < shots:
        wanted = ", ".join(m for m, weight in weights.items() if weight > 0)
        raise UserError(
            f"{shots} shots, but {len(usable)} training subjects have a labelled scan to train on ({wanted})",
            where="data.shots",
            expected=f"at most {len(usable)}, or null for all of them",
        )
    # nobody at all is said by whoever wants to train
    return sorted(usable or subjects, key=lambda s: derive(seed, "shots", s.id))[:shots]
