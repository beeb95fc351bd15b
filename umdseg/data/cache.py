"""Preprocessed scans on disk: computed once, read a patch at a time."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid
from umdseg.data.hashes import cache_root, file_hash
from umdseg.data.io.nifti import read_grid, read_image, read_label
from umdseg.data.preprocess import Preprocessing, prepare_image, prepare_label
from umdseg.files import sha256_value
from umdseg.seeds import generator
from umdseg.vocabulary import Scan

_VERSION = 1
MAX_INDICES = 2000


@dataclass(frozen=True)
class CachedScan:
    """One preprocessed scan in a folder of the cache; nothing is read before it is needed."""

    folder: Path

    @cached_property
    def grid(self) -> Grid:
        """Place of the prepared volume in patient space."""
        told = json.loads((self.folder / "grid.json").read_text(encoding="utf-8"))
        x, y, z = told["shape"]
        return Grid((x, y, z), np.array(told["affine"], dtype=np.float64))

    @property
    def has_label(self) -> bool:
        """Whether the scan came with a label."""
        return (self.folder / "label.npy").is_file()

    def image(self) -> NDArray[np.float32]:
        """(X, Y, Z) float32, memory-mapped: only what is sliced is read."""
        array: NDArray[np.float32] = np.load(self.folder / "image.npy", mmap_mode="r")
        return array

    def label(self) -> NDArray[np.int16]:
        """(X, Y, Z) int16, memory-mapped; 0 is background, i + 1 the i-th structure."""
        array: NDArray[np.int16] = np.load(self.folder / "label.npy", mmap_mode="r")
        return array

    @cached_property
    def foreground(self) -> dict[int, NDArray[np.int32]]:
        """Label value -> (n, 3) voxel indices, at most `MAX_INDICES` drawn at random."""
        with np.load(self.folder / "foreground.npz") as stored:
            return {int(key): stored[key] for key in stored.files}


class PreparedCache:
    """Maps (scan content, label content, preprocessing, structure ids) to a prepared scan.

    Args:
        cache_dir: folder; None means $UMDSEG_CACHE or ~/.cache/umdseg.
    """

    def __init__(self, cache_dir: str | Path | None = None) -> None:
        self.cache_dir = cache_dir

    def get(
        self,
        scan: Scan,
        subject: str,
        preprocessing: Preprocessing,
        ids: Sequence[int],
        allowed: Sequence[int],
        others: Sequence[Path] = (),
    ) -> CachedScan:
        """Return a prepared scan, preparing it when the cache has none.

        Args:
            scan: image and, if there is one, label.
            subject: named in errors.
            preprocessing: the card's numbers.
            ids: label ids that become 1, 2, ... in this order.
            allowed: all ids the label may hold.
            others: images of the subject's other scans, on whose grids a shared label may lie.

        Raises:
            UserError: the image or the label cannot be used, see `umdseg.data.io.nifti`.
        """
        folder = self._folder(scan, preprocessing, ids)
        if not (folder / "grid.json").is_file():
            self._fill(folder, scan, subject, preprocessing, ids, allowed, others)
        return CachedScan(folder)

    def _folder(self, scan: Scan, preprocessing: Preprocessing, ids: Sequence[int]) -> Path:
        image = file_hash(scan.image, self.cache_dir)
        label = file_hash(scan.label, self.cache_dir) if scan.label else None
        key = sha256_value([_VERSION, scan.modality, image, label, preprocessing.fingerprint(), list(ids)])
        return cache_root(self.cache_dir) / "prepared" / key[:2] / key

    def _fill(
        self,
        folder: Path,
        scan: Scan,
        subject: str,
        preprocessing: Preprocessing,
        ids: Sequence[int],
        allowed: Sequence[int],
        others: Sequence[Path],
    ) -> None:
        volume = read_image(scan.image, subject)
        prepared = prepare_image(volume, scan.modality, preprocessing)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{os.getpid()}-", dir=folder.parent))
        try:
            np.save(temporary / "image.npy", prepared.image[0].numpy())
            if scan.label is not None:
                grids = (read_grid(path, subject) for path in others)
                label = read_label(scan.label, volume.grid, allowed, subject, grids)
                array = prepare_label(label, ids, prepared.grid)[0].numpy()
                np.save(temporary / "label.npy", array)
                found = {str(value): index for value, index in _indices(array, folder.name).items()}
                np.savez(temporary / "foreground.npz", **found)  # type: ignore[arg-type]
            told = {"shape": prepared.grid.shape, "affine": prepared.grid.affine.tolist()}
            (temporary / "grid.json").write_text(json.dumps(told), encoding="utf-8")
            _publish(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, folder: Path) -> None:
    try:
        os.rename(temporary, folder)
    except OSError:
        # another process was first; its content is the same
        if not (folder / "grid.json").is_file():
            raise


def _indices(label: NDArray[np.int16], key: str) -> dict[int, NDArray[np.int32]]:
    """Per label value a random subset of its voxels, the same whenever the cache is filled again."""
    found: dict[int, NDArray[np.int32]] = {}
    for value in np.unique(label[label > 0]):
        flat = np.flatnonzero(label == value)
        if len(flat) > MAX_INDICES:
            chosen = generator(0, "foreground", key, int(value)).choice(len(flat), MAX_INDICES, replace=False)
            flat = flat[np.sort(chosen)]
        found[int(value)] = np.stack(np.unravel_index(flat, label.shape), axis=1).astype(np.int32)
    return found
