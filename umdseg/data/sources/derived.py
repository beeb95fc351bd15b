"""Files a dataset does not have in the form umdseg reads: made once into the cache, each whole or absent.

Label maps put together from several files or with other ids, and images in another format. The name of a
made file carries a hash of path, size and time of change of all it is made from, and of how: other
content, another file (`umdseg.data.hashes` trusts the same three).
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import GRID_TOLERANCE_MM, Volume
from umdseg.data.hashes import cache_root
from umdseg.data.io.header import read_header
from umdseg.data.io.nifti import grid_mismatch, read_grid, stored_voxels, write_volume
from umdseg.errors import UserError
from umdseg.files import atomic, sha256_value
from umdseg.progress import track

# raised when the same sources would give another file
VERSION = 1


@dataclass(frozen=True)
class Derived(ABC):
    """One file to be made.

    Attributes:
        target: where, in the cache.
        subject: named in errors.
        sources: what it is made from.
    """

    target: Path
    subject: str
    sources: tuple[Path, ...]

    @abstractmethod
    def make(self) -> int:
        """Write the target; returns how many voxels two sources claim.

        Raises:
            UserError: a source that cannot be used.
        """


@dataclass(frozen=True)
class Combined(Derived):
    """A label map from one or more label files on one grid; where they overlap the higher id wins.

    Attributes:
        ids: per source: id in the file -> id in the map (0 leaves it out). Other ids are refused.
    """

    ids: tuple[Mapping[int, int], ...]

    def make(self) -> int:
        """As `Derived.make`."""
        grid = read_grid(self.sources[0], self.subject)
        largest = max(max(table.values()) for table in self.ids)
        total = np.zeros(grid.shape, np.uint8 if largest < 2**8 else np.int16, order="F")
        overlap = 0
        for path, table in zip(self.sources, self.ids, strict=True):
            where = f"{path} (subject {self.subject})"
            header, own = read_header(path, self.subject)
            if not own.same_as(grid, GRID_TOLERANCE_MM):
                raise grid_mismatch(own, grid, where, self.sources[0])
            part = _translate(stored_voxels(header, path, where).reshape(grid.shape), table, where)
            part = part.astype(total.dtype)
            overlap += int(np.count_nonzero((part > 0) & (total > 0)))
            np.maximum(total, part, out=total)
        write_volume(Volume(total, grid), self.target)
        return overlap


@dataclass(frozen=True)
class Converted(Derived):
    """An image in another format that SimpleITK reads, as NIfTI with the same voxels and place."""

    def make(self) -> int:
        """As `Derived.make`."""
        import SimpleITK as sitk

        try:
            image = sitk.ReadImage(str(self.sources[0]))
        except RuntimeError as error:
            what = f"file cannot be read: {str(error).strip().splitlines()[-1]}"
            where = f"{self.sources[0]} (subject {self.subject})"
            raise UserError(what, where=where, expected="a complete image file") from error
        with atomic(self.target) as temporary:
            sitk.WriteImage(image, str(temporary))
        return 0


def target(cache_dir: str | None, dataset: str, name: str, sources: Sequence[Path], how: object) -> Path:
    """Where the file made from `sources` lies.

    Args:
        cache_dir: as `DataOptions.cache_dir`.
        dataset: name of the source.
        name: readable part of the file's name.
        sources: what it is made from; they must exist.
        how: plain data saying what is done to them.
    """
    folders = {path.parent: str(path.parent.resolve()) for path in sources}
    states = [(folders[p.parent], p.name, (s := p.stat()).st_size, s.st_mtime_ns) for p in sources]
    key = sha256_value([VERSION, states, how])[:16]
    return cache_root(cache_dir) / "derived" / dataset / key / f"{name}.nii.gz"


def build(derived: Sequence[Derived]) -> None:
    """Make the files that are not there yet, on several threads (most of the time is decompression).

    Raises:
        UserError: a source that cannot be used.
    """
    missing = [one for one in derived if not one.target.is_file()]
    if not missing:
        return
    count = len(missing)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, count, 8)) as pool:
        try:
            made = pool.map(lambda one: one.make(), missing)
            doubled = [voxels for voxels in track(made, "prepare files", "file", total=count) if voxels]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if doubled:
        print(
            f"warning: structures overlap in {len(doubled)} of {count} label maps "
            f"({sum(doubled)} voxels in all); the one with the higher id was kept",
            file=sys.stderr,
            flush=True,
        )


def _translate(array: NDArray[Any], table: Mapping[int, int], where: str) -> NDArray[np.int16]:
    if array.dtype.kind == "f":
        whole = np.round(array)
        if not bool((np.abs(array - whole) <= 1e-3).all()):
            what = "label has values that are not whole numbers"
            raise UserError(what, where=where, expected="integer structure ids")
        array = whole.astype(np.int32)
    lookup = np.full(max(table) + 1, -1, np.int16)
    lookup[0] = 0
    for old, new in table.items():
        lookup[old] = new
    inside = int(array.min()) >= 0 and int(array.max()) < len(lookup)
    if inside and len(lookup) == 2:
        # a binary mask, of which there may be a hundred a subject: multiplying is ten times faster
        return np.asarray(array.astype(np.int16) * lookup[1])
    part = lookup[array] if inside else np.full(array.shape, -1, np.int16)
    if part.min() < 0:
        strange = sorted({int(i) for i in np.unique(array)} - set(table) - {0})
        raise UserError(
            f"label holds ids that no structure has: {', '.join(map(str, strange[:20]))}",
            where=where,
            expected=f"0 (background) and {_ranges(table)}",
        )
    return part


def _ranges(table: Mapping[int, int]) -> str:
    ids = sorted(table)
    return str(ids[0]) if len(ids) == 1 else f"{len(ids)} ids from {ids[0]} to {ids[-1]}"
