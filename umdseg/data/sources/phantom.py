"""data=phantom: procedural whole-body subjects, written once as NIfTI and then read like any data."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from umdseg.data.dataset import PairedDataset
from umdseg.data.hashes import cache_root
from umdseg.data.options import DataOptions
from umdseg.data.sources.base import Source
from umdseg.errors import UserError
from umdseg.files import sha256_value
from umdseg.progress import track
from umdseg.seeds import derive
from umdseg.vocabulary import UNITS, Modality, Scan, Subject

# raised whenever anatomy or physics change, so that old files are not taken for new ones
VERSION = 1
_TRACER: dict[Modality, str | None] = {"ct": None, "pet": "FDG", "mr": "T1"}


@dataclass
class PhantomOptions(DataOptions):
    """Options of the phantoms.

    Attributes:
        train: training subjects.
        val: validation subjects.
        test: test subjects.
        population: another name means other people, whatever the seed (pretraining uses its own).
        breathing_mm: how far PET organs lie above their label at the diaphragm (breathing mismatch).
    """

    name: str = "phantom"
    train: int = 16
    val: int = 0
    test: int = 8
    population: str = "study"
    breathing_mm: float = 0.0


@dataclass(frozen=True)
class _Task:
    folder: Path
    subject: int
    modality: Modality
    breathing_mm: float


class PhantomSource(Source):
    """Renders the subjects asked for; the same seed and options give the same files."""

    Options = PhantomOptions
    generated = True

    def __init__(self, options: PhantomOptions) -> None:
        self.options = options

    def load(self, seed: int) -> PairedDataset:
        """The dataset; scans that are not in the cache yet are rendered on all cores.

        Raises:
            UserError: a negative number of subjects, or none at all.
        """
        tasks, dataset = self._plan(seed)
        _render_all([task for task in tasks if not _done(task)])
        return dataset

    def read(self, seed: int) -> PairedDataset:
        """The subjects as `load` gives them, rendered or not.

        Raises:
            UserError: as `load`.
        """
        return self._plan(seed)[1]

    def _plan(self, seed: int) -> tuple[list[_Task], PairedDataset]:
        counts = {"train": self.options.train, "val": self.options.val, "test": self.options.test}
        if min(counts.values()) < 0 or not any(counts.values()):
            raise UserError(
                f"phantom subjects: {counts}", where="data.train, data.val, data.test", expected="0 or more"
            )
        # one folder per kind of anatomy; subjects are shared by all runs that ask for them
        root = cache_root(self.options.cache_dir) / "phantom" / self._key()
        wanted, subjects = self._modalities(), []
        tasks: list[_Task] = []
        for split, count in counts.items():
            for index in range(count):
                number = derive(seed, "phantom", self.options.population, split, index)
                own = [_Task(root / f"{number:016x}", number, m, self.options.breathing_mm) for m in wanted]
                tasks += own
                scans = {task.modality: _scan(task) for task in own}
                subjects.append(Subject(f"phantom_{split}_{index:03d}", scans, split, "", "phantom"))
        from umdseg.data.phantom.subject import STRUCTURES

        return tasks, PairedDataset("phantom", tuple(subjects), STRUCTURES, root)

    def _modalities(self) -> list[Modality]:
        trained = {m for m, weight in self.options.train_modalities.items() if weight > 0}
        return [m for m in UNITS if m in self.options.modalities or m in trained]

    def _key(self) -> str:
        from umdseg.data.phantom.imaging import Scanner

        return sha256_value([VERSION, asdict(Scanner()), self.options.breathing_mm])[:12]


def _scan(task: _Task) -> Scan:
    image, label = _files(task)
    return Scan(image, task.modality, UNITS[task.modality], label, _TRACER[task.modality])


def _files(task: _Task) -> tuple[Path, Path]:
    # images stay uncompressed: noise does not compress, and reading is then free
    return task.folder / f"{task.modality}.nii", task.folder / f"{task.modality}_label.nii.gz"


def _done(task: _Task) -> bool:
    return all(path.is_file() for path in _files(task))


def _render_all(tasks: Sequence[_Task]) -> None:
    if not tasks:
        return
    told = ("render phantoms", "scan")
    if len(tasks) < 3:
        for task in track(tasks, *told):
            _render(task)
        return
    # fresh processes: a fork would copy the locks of torch's threads
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(tasks), 8), mp_context=context) as pool:
        for _ in track(pool.map(_render, tasks), *told, total=len(tasks)):
            pass


def _render(task: _Task) -> None:
    from umdseg.data.io.nifti import write_volume
    from umdseg.data.phantom.imaging import Scanner
    from umdseg.data.phantom.subject import render

    image, label = render(task.subject, task.modality, Scanner(), task.breathing_mm)
    paths = _files(task)
    # the image last: a subject counts as rendered when both files are there
    write_volume(label, paths[1])
    write_volume(image, paths[0])
