"""Subjects on the anatomy of label maps: who is in which split, and rendering one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umdseg.data.hashes import file_hash
from umdseg.data.phantom.labelmap import person, stem, tracer_of
from umdseg.errors import UserError
from umdseg.progress import track
from umdseg.seeds import derive
from umdseg.vocabulary import Modality


@dataclass(frozen=True)
class MapTask:
    """One subject to render, all its scans at once because they share the map's anatomy.

    Attributes:
        folder: where the files go.
        modalities: scans wanted.
        map: label map.
        structures: structure -> id.
        seed: subject seed.
        tracer: of the PET.
        breathing_mm: see `render_map`.
        deform: see `render_map`.
        extent_mm: largest field of view.
    """

    folder: Path
    modalities: tuple[Modality, ...]
    map: Path
    structures: Mapping[str, int]
    seed: int
    tracer: str
    breathing_mm: float
    deform: float
    extent_mm: tuple[float, float, float]

    def files(self, modality: Modality) -> tuple[Path, Path]:
        """Image and label of one scan."""
        # images stay uncompressed: noise does not compress, and reading is then free
        return self.folder / f"{modality}.nii", self.folder / f"{modality}_label.nii.gz"

    def missing(self) -> list[Modality]:
        """Scans that are not rendered yet."""
        return [m for m in self.modalities if not all(path.is_file() for path in self.files(m))]


def deal_maps(maps: Sequence[Path], seed: int, counts: Mapping[str, int | None]) -> dict[str, list[Path]]:
    """Split -> its maps. All maps of one person are in one split, and tracers are balanced.

    Args:
        maps: label maps; persons by `labelmap.person`.
        seed: the run's seed.
        counts: people in train, val and test. None for both train and test: a third is tested, the
            others train; for one of them: the rest.

    Raises:
        UserError: more people wanted than there are, or nobody.
    """
    people: dict[str, list[Path]] = {}
    for path in maps:
        people.setdefault(person(stem(path)), []).append(path)
    wanted = _wanted(len(people), counts)
    order = _balanced({name: tracer_of(name) for name in people}, seed)
    splits: dict[str, list[Path]] = {}
    for split in ("test", "val", "train"):
        names, order = order[: wanted[split]], order[wanted[split] :]
        splits[split] = sorted(path for name in names for path in people[name])
    return splits


def _wanted(total: int, counts: Mapping[str, int | None]) -> dict[str, int]:
    train, val, test = counts["train"], counts["val"] or 0, counts["test"]
    if test is None:
        test = max(1, round(total / 3)) if train is None else total - train - val
    if train is None:
        train = total - val - test
    if min(train, val, test) < 0 or train + val + test > total or train + val + test == 0:
        raise UserError(
            f"{counts['train']} + {counts['val']} + {counts['test']} people wanted, {total} have label maps",
            where="data.train, data.val, data.test",
            expected=f"no more than {total} together; data.copies=N makes N training subjects of each map",
        )
    return {"train": train, "val": val, "test": test}


def _balanced(tracers: Mapping[str, str], seed: int) -> list[str]:
    """People in a seeded order of which every stretch holds the tracers in about equal shares."""
    place: dict[str, float] = {}
    for tracer in sorted(set(tracers.values())):
        own = sorted((n for n in tracers if tracers[n] == tracer), key=lambda n: derive(seed, "map", n))
        place |= {name: (rank + 0.5) / len(own) for rank, name in enumerate(own)}
    return sorted(place, key=lambda name: (place[name], name))


def render_subject(task: MapTask) -> None:
    """Render the scans of one subject that are missing; each file is whole or absent.

    Raises:
        UserError: anything wrong with the map.
    """
    from umdseg.data.io.nifti import write_volume
    from umdseg.data.phantom.labelmap import read_map
    from umdseg.data.phantom.mapped import MAP_SCANNER, MapAnatomy, render_map

    anatomy = MapAnatomy(read_map(task.map, task.structures), task.extent_mm)
    for modality in task.missing():
        image, label = render_map(
            anatomy, task.seed, modality, MAP_SCANNER, task.tracer, task.breathing_mm, task.deform
        )
        paths = task.files(modality)
        # the image last: a scan counts as rendered when both files are there
        write_volume(label, paths[1])
        write_volume(image, paths[0])


def refuse_same(maps: Sequence[Path], cache_dir: str | None) -> None:
    """Refuse one map under two names: it could be trained on and tested.

    Raises:
        UserError: naming both.
    """
    seen: dict[str, Path] = {}
    for path in track(maps, "read label maps", "map"):
        other = seen.setdefault(file_hash(path, cache_dir), path)
        if other != path:
            what = f"label maps {other.name} and {path.name} are the same"
            raise UserError(what, where=path, expected="every person's map once")
