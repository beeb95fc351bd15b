"""data=phantom: synthetic whole-body subjects, written once as NIfTI and then read like any data.

Procedural by default; with `data.labels=DIR` on the real anatomy of organ label maps.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from umdseg.data.dataset import PairedDataset
from umdseg.data.hashes import cache_root, file_hash
from umdseg.data.options import DataOptions
from umdseg.data.phantom.cohort import MapTask, deal_maps, refuse_same, render_subject
from umdseg.data.phantom.labelmap import find_maps, person, read_ids, stem, tracer_of
from umdseg.data.sources.base import Listing, Source
from umdseg.data.splits import deal
from umdseg.errors import UserError, unknown
from umdseg.files import sha256_value
from umdseg.progress import track
from umdseg.seeds import derive
from umdseg.vocabulary import UNITS, Modality, Scan, Subject

# raised whenever anatomy or physics change, so that old files are not taken for new ones
VERSION = 1
MAP_VERSION = 1
TRACERS = ("auto", "FDG", "PSMA")
_TRAIN, _TEST = 16, 8
_TRACER: dict[Modality, str | None] = {"ct": None, "pet": "FDG", "mr": "T1"}


def _field_of_view() -> list[float]:
    return [440.0, 320.0, 1000.0]


@dataclass
class PhantomOptions(DataOptions):
    """Options of the phantoms.

    Attributes:
        train: training subjects; people, with `labels`. None: 16, with `labels` those not tested.
        val: validation subjects.
        test: test subjects. None: 8, with `labels` a third of the people.
        population: another name means other people, whatever the seed (pretraining uses its own).
        breathing_mm: how far PET organs lie above their label at the diaphragm (breathing mismatch).
        labels: folder of organ label maps (NIfTI) to paint subjects onto; None is procedural anatomy.
        label_ids: file naming the maps' ids; None means `label_ids.json` (or .yaml) in the folder.
        tracer: FDG or PSMA; auto is PSMA for maps whose name starts with psma, else FDG.
        copies: training subjects per map: the first has the map's own anatomy, the others deformed ones.
            Those tested have the map's own.
        deform: strength of that deformation; 1 is a warp of 4 mm and 4 % in size (standard deviations).
        extent_mm: largest field of view along x, y and z; longer maps are cut at the feet.
        procedural: with `labels`, so many training subjects more, of procedural anatomy; the dataset then
            has the structures of both, and each subject's label tells about its own.
    """

    name: str = "phantom"
    train: int | None = None
    val: int = 0
    test: int | None = None
    population: str = "study"
    breathing_mm: float = 0.0
    labels: str | None = None
    label_ids: str | None = None
    tracer: str = "auto"
    copies: int = 1
    deform: float = 1.0
    extent_mm: list[float] = field(default_factory=_field_of_view)
    procedural: int = 0

    def validate(self) -> None:
        """Refuse values that cannot work, and options of label maps without label maps.

        Raises:
            UserError: as `DataOptions.validate`, an unknown tracer, or a number outside its range.
        """
        super().validate()
        if self.tracer not in TRACERS:
            raise unknown("tracer", self.tracer, TRACERS, where="data.tracer")
        if self.copies < 1 or not self.deform >= 0 or self.procedural < 0:
            given = f"copies={self.copies}, deform={self.deform}, procedural={self.procedural}"
            where, expected = "data.copies, data.deform, data.procedural", "copies >= 1, the others >= 0"
            raise UserError(f"{given} is out of range", where=where, expected=expected)
        if len(self.extent_mm) != 3 or not all(length >= 100 for length in self.extent_mm):
            expected = "three lengths in mm, each 100 or more"
            raise UserError(f"{self.extent_mm} is no extent", where="data.extent_mm", expected=expected)
        more = bool(self.label_ids) or self.copies != 1 or self.procedural != 0
        if self.labels is None and (more or self.tracer == "PSMA"):
            what = "label_ids, copies, procedural and tracer=PSMA are for subjects on label maps"
            raise UserError(what, where="data.labels", expected="data.labels=DIR as well")


@dataclass(frozen=True)
class _Task:
    folder: Path
    subject: int
    modality: Modality
    breathing_mm: float
    ids: tuple[tuple[str, int], ...] | None = None


class PhantomSource(Source):
    """Renders the subjects asked for; the same seed and options give the same files."""

    Options = PhantomOptions
    options: PhantomOptions
    generated = True

    def load(self, seed: int) -> PairedDataset:
        """The dataset; scans that are not in the cache yet are rendered on all cores.

        Raises:
            UserError: a negative number of subjects, or none at all; with `labels` anything wrong with the
                folder, the ids or a map.
        """
        if self.options.labels is not None:
            maps, dataset = self._plan_maps(seed)
            also, dataset = self._with_more(deal(dataset, self.options, seed), seed)
            _render_all([task for task in maps if task.missing()], render_subject, "subject")
            _render_all([task for task in also if not _done(task)], _render, "scan")
            return dataset
        tasks, dataset = self._plan(seed)
        dataset = deal(dataset, self.options, seed)
        _render_all([task for task in tasks if not _done(task)], _render, "scan")
        return dataset

    def listing(self, seed: int) -> Listing:
        """The subjects as `load` gives them, rendered or not, in the splits of `train`, `val` and `test`.

        Raises:
            UserError: as `load`.
        """
        if self.options.labels is None:
            return Listing(self._plan(seed)[1])
        return Listing(self._with_more(self._plan_maps(seed)[1], seed)[1])

    def _plan(self, seed: int) -> tuple[list[_Task], PairedDataset]:
        train, test = self.options.train, self.options.test
        counts = {
            "train": _TRAIN if train is None else train,
            "val": self.options.val,
            "test": _TEST if test is None else test,
        }
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

    def _plan_maps(self, seed: int) -> tuple[list[MapTask], PairedDataset]:
        options = self.options
        folder = str(options.labels)
        structures = read_ids(folder, options.label_ids)
        maps = find_maps(folder)
        refuse_same(maps, options.cache_dir)
        counts = {"train": options.train, "val": options.val, "test": options.test}
        root = cache_root(options.cache_dir) / "phantom"
        tasks, subjects = [], []
        told = tuple(structures) if options.procedural else None
        # the split is one for all seeds: weights pretrained on the training maps must not meet them again as
        # test maps
        for split, paths in deal_maps(maps, 0, counts).items():
            for path in paths:
                # deformed copies teach; scores are of people as their maps are
                for copy in range(options.copies if split == "train" else 1):
                    task = self._map_task(root, seed, path, structures, copy)
                    tasks.append(task)
                    scans = {m: self._map_scan(task, m) for m in task.modalities}
                    name = stem(path) + (f"_copy{copy}" if copy else "")
                    subjects.append(Subject(name, scans, split, "", "phantom", person(stem(path)), told))
        return tasks, PairedDataset("phantom", tuple(subjects), structures, root)

    def _with_more(self, dataset: PairedDataset, seed: int) -> tuple[list[_Task], PairedDataset]:
        """Procedural training subjects joined to those on maps, under the ids of both kinds' structures."""
        if not self.options.procedural:
            return [], dataset
        from umdseg.data.phantom.subject import STRUCTURES

        root = cache_root(self.options.cache_dir) / "phantom"
        ids = dict(dataset.structures)
        for name in STRUCTURES:
            ids.setdefault(name, max(ids.values()) + 1)
        own = {name: ids[name] for name in STRUCTURES}
        place = root / sha256_value([self._key(), own])[:12]
        tasks, subjects = [], []
        for index in range(self.options.procedural):
            number = derive(seed, "phantom", self.options.population, "train", index)
            made = [
                _Task(place / f"{number:016x}", number, m, self.options.breathing_mm, tuple(own.items()))
                for m in self._modalities()
            ]
            tasks += made
            scans = {task.modality: _scan(task) for task in made}
            name = f"phantom_train_{index:03d}"
            subjects.append(Subject(name, scans, "train", "", "phantom", annotated=tuple(own)))
        return tasks, PairedDataset("phantom", (*dataset.subjects, *subjects), ids, root)

    def _map_task(self, root: Path, seed: int, path: Path, structures: dict[str, int], copy: int) -> MapTask:
        options, name = self.options, stem(path)
        tracer = tracer_of(name) if options.tracer == "auto" else options.tracer
        number = derive(seed, "phantom", options.population, "map", name, copy)
        extent = (options.extent_mm[0], options.extent_mm[1], options.extent_mm[2])
        deform = options.deform if copy else 0.0
        from umdseg.data.phantom.mapped import MAP_SCANNER

        told = [MAP_VERSION, VERSION, asdict(MAP_SCANNER), structures, tracer, number, deform, extent]
        key = sha256_value([*told, options.breathing_mm, file_hash(path, options.cache_dir)])[:16]
        return MapTask(
            folder=root / "maps" / key,
            modalities=tuple(self._modalities()),
            map=path,
            structures=structures,
            seed=number,
            tracer=tracer,
            breathing_mm=options.breathing_mm,
            deform=deform,
            extent_mm=extent,
        )

    def _map_scan(self, task: MapTask, modality: Modality) -> Scan:
        image, label = task.files(modality)
        told = task.tracer if modality == "pet" else _TRACER[modality]
        return Scan(image, modality, UNITS[modality], label, told)

    def _modalities(self) -> list[Modality]:
        trained = {m for m, weight in self.options.train_modalities.items() if weight > 0}
        return [m for m in UNITS if m in self.options.modalities or m in trained]

    def _key(self) -> str:
        return sha256_value([VERSION, asdict(_scanner()), self.options.breathing_mm])[:12]


def _scanner() -> Any:
    from umdseg.data.phantom.imaging import Scanner

    return Scanner()


def _scan(task: _Task) -> Scan:
    image, label = _files(task)
    return Scan(image, task.modality, UNITS[task.modality], label, _TRACER[task.modality])


def _files(task: _Task) -> tuple[Path, Path]:
    # images stay uncompressed: noise does not compress, and reading is then free
    return task.folder / f"{task.modality}.nii", task.folder / f"{task.modality}_label.nii.gz"


def _done(task: _Task) -> bool:
    return all(path.is_file() for path in _files(task))


def _render_all(tasks: Sequence[Any], render: Callable[[Any], None], unit: str) -> None:
    if not tasks:
        return
    told = ("render phantoms", unit)
    if len(tasks) < 3:
        for task in track(tasks, *told):
            render(task)
        return
    # fresh processes: a fork would copy the locks of torch's threads
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(tasks), 8), mp_context=context) as pool:
        for _ in track(pool.map(render, tasks), *told, total=len(tasks)):
            pass


def _render(task: _Task) -> None:
    from umdseg.data.io.nifti import write_volume
    from umdseg.data.phantom.subject import STRUCTURES, render

    ids = STRUCTURES if task.ids is None else dict(task.ids)
    image, label = render(task.subject, task.modality, _scanner(), task.breathing_mm, ids)
    paths = _files(task)
    # the image last: a subject counts as rendered when both files are there
    write_volume(label, paths[1])
    write_volume(image, paths[0])
