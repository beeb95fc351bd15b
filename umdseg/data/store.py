"""One prepared scan on disk: compressed arrays of which a patch is read alone, and what proves them whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid
from umdseg.data.verdict import Finding
from umdseg.files import sha256_file
from umdseg.seeds import generator

MAX_INDICES = 2000
# a chunk is what Blosc2 stores together, a block what it decompresses alone: 128 kB of float32, which stays
# in a core's second-level cache
CHUNK, BLOCK = 64, 32


class Sliceable(Protocol):
    """(X, Y, Z) voxels of which only what is sliced is read and decompressed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis."""
        ...

    @property
    def dtype(self) -> Any:
        """Type of a voxel."""
        ...

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Copy a part out."""
        ...


@dataclass(frozen=True)
class CachedScan:
    """One prepared scan in a folder of the cache; nothing is read before it is needed.

    Attributes:
        folder: of the entry; holds image.b2nd, label.b2nd, foreground.npy and entry.json.
    """

    folder: Path

    @cached_property
    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder / "entry.json").read_text(encoding="utf-8"))
        return told

    @cached_property
    def grid(self) -> Grid:
        """Place of the prepared volume in patient space."""
        x, y, z = self._told["shape"]
        return Grid((x, y, z), np.array(self._told["affine"], dtype=np.float64))

    @property
    def has_label(self) -> bool:
        """Whether the scan came with a label."""
        return "label.b2nd" in self._told["files"]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found in the scan when it was prepared."""
        return tuple(Finding(**found) for found in self._told["findings"])

    @cached_property
    def image(self) -> Sliceable:
        """(X, Y, Z) float32, exactly as prepared."""
        return _open(self.folder / "image.b2nd")

    @cached_property
    def label(self) -> Sliceable:
        """(X, Y, Z) uint8, or int16 beyond 255 structures; 0 is background, i + 1 the i-th structure."""
        return _open(self.folder / "label.b2nd")

    @cached_property
    def foreground(self) -> dict[int, NDArray[np.int32]]:
        """Label value -> (n, 3) voxel indices, at most `MAX_INDICES` drawn at random, memory-mapped."""
        counts: dict[str, int] = self._told["foreground"]
        if not counts:
            return {}
        rows = np.load(self.folder / "foreground.npy", mmap_mode="r")
        ends = np.cumsum(list(counts.values()))
        return {int(v): rows[end - n : end] for (v, n), end in zip(counts.items(), ends, strict=True)}


@dataclass(frozen=True)
class Entry:
    """One prepared scan, packed and ready to be written.

    Attributes:
        files: name -> content.
        told: what entry.json says besides the files.
    """

    files: Mapping[str, bytes]
    told: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(len(content) for content in self.files.values())


def pack_entry(
    image: NDArray[np.float32],
    label: NDArray[np.int16] | None,
    grid: Grid,
    findings: Sequence[Finding],
    key: str,
) -> Entry:
    """Pack one prepared scan.

    Args:
        image: (X, Y, Z).
        label: (X, Y, Z), 0 to the number of structures; None when the scan has none.
        grid: place of both.
        findings: what was found in the scan.
        key: of the entry; decides which foreground voxels are kept.
    """
    counts: dict[str, int] = {}
    files = {"image.b2nd": packed(image)}
    if label is not None:
        small = int(label.max()) <= np.iinfo(np.uint8).max
        files["label.b2nd"] = packed(label.astype(np.uint8) if small else label)
        indices = _indices(label, key)
        counts = {str(value): len(rows) for value, rows in indices.items()}
        if indices:
            buffer = io.BytesIO()
            np.save(buffer, np.concatenate(list(indices.values())))
            files["foreground.npy"] = buffer.getvalue()
    told = {"shape": grid.shape, "affine": grid.affine.tolist(), "foreground": counts}
    return Entry(files, told | {"findings": [asdict(found) for found in findings]})


def write_entry(folder: Path, entry: Entry) -> None:
    """Write an entry into an empty folder; entry.json, which makes it one, comes last.

    Raises:
        OSError: the folder cannot hold it.
    """
    written = {name: _write(folder / name, content) for name, content in entry.files.items()}
    _write(folder / "entry.json", json.dumps({**entry.told, "files": written}).encode())


def damage(folder: Path, deep: bool = False) -> str | None:
    """What is wrong with an entry, in a few words; None when it is whole.

    Size and time of change of every file must be those noted when it was written. Where only the time
    differs (a cache that was copied), the content's SHA-256 decides: Blosc2 has no checksums, and a zeroed
    part of a chunk can decompress to zeros without an error.

    Args:
        folder: an entry.
        deep: compare the contents in any case.
    """
    try:
        files: Mapping[str, Any] = json.loads((folder / "entry.json").read_text(encoding="utf-8"))["files"]
        for name, (size, changed, digest) in files.items():
            path = folder / name
            state = path.stat()
            if state.st_size != size:
                return f"{name} has {state.st_size} bytes instead of {size}"
            if deep or state.st_mtime_ns != changed:
                if sha256_file(path) != digest:
                    return f"the content of {name} has changed"
                # the owner alone may set it, in a cache shared by several users
                with suppress(PermissionError):
                    os.utime(path, ns=(state.st_atime_ns, changed))
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be read: {error}"
    return None


def packed(array: NDArray[Any]) -> bytes:
    """An array as the bytes of a .b2nd file.

    LZ4 behind a byte shuffle: on noisy whole-body images ZSTD saves another tenth of the space and reads
    half as fast. Packed in memory, so that a full disk is met by a plain write that says so.
    """
    import blosc2  # type: ignore[import-untyped]

    # one thread: this may run in a forked loader worker, which has none of its parent's threads
    cparams = blosc2.CParams(
        codec=blosc2.Codec.LZ4, clevel=5, filters=[blosc2.Filter.SHUFFLE], typesize=array.itemsize, nthreads=1
    )
    chunks = tuple(min(CHUNK, n) for n in array.shape)
    blocks = tuple(min(BLOCK, n) for n in array.shape)
    made = blosc2.asarray(np.ascontiguousarray(array), chunks=chunks, blocks=blocks, cparams=cparams)
    frame: bytes = made.to_cframe()
    return frame


def _open(path: Path) -> Sliceable:
    import blosc2

    dparams = blosc2.DParams(nthreads=1)
    opened: Sliceable = blosc2.open(str(path), mode="r", mmap_mode="r", dparams=dparams)
    return opened


def _write(path: Path, content: bytes) -> tuple[int, int, str]:
    """Write to the disk itself; return size, time of change (ns) and SHA-256."""
    with open(path, "wb") as stream:
        stream.write(content)
        stream.flush()
        # the rename that publishes the entry must not reach the disk before its files
        os.fsync(stream.fileno())
    return len(content), path.stat().st_mtime_ns, hashlib.sha256(content).hexdigest()


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
