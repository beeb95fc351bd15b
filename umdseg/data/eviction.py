"""Room on the cache's disk: the least recently used entries go first, those in use never."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from umdseg.data.lease import in_use
from umdseg.errors import UserError

PREPARED, BUILDING = "prepared", "building"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class _Entry:
    folder: Path
    size: int
    used: float


def touch(folder: Path) -> None:
    """Note that an entry is used now: the time of change of entry.json."""
    # the owner alone may set it, in a cache shared by several users
    with suppress(PermissionError):
        os.utime(folder / "entry.json")


def make_room(root: Path, size: int, limit_gb: float | None) -> str | None:
    """Remove entries that nobody uses, least recently used first, until `size` more bytes fit. Under `guard`.

    Args:
        root: folder of the cache.
        size: bytes about to be added.
        limit_gb: gigabytes (1e9 bytes) all entries may take; None removes nothing.

    Returns:
        One sentence when what is in use leaves too little room, else None.
    """
    if limit_gb is None:
        return None
    used = in_use(root)
    entries = sorted(_entries(root), key=lambda entry: entry.used)
    total = size + sum(entry.size for entry in entries)
    for entry in entries:
        if total <= limit_gb * 1e9:
            return None
        if entry.folder.name not in used:
            # in a cache shared by several users another's may have to stay
            with suppress(PermissionError):
                remove(root, entry.folder)
                total -= entry.size
    if total <= limit_gb * 1e9:
        return None
    held = f"prepared scans in use take {total / 1e9:.3g} GB"
    return f"data.cache_gb={limit_gb:g} is too small and exceeded: {held}"


def remove(root: Path, folder: Path) -> None:
    """Take an entry out of the cache; who has it open goes on reading what it was. Under `guard`."""
    # renamed first: deleting takes longer, and a part of an entry must never be found
    aside = root / BUILDING / uuid.uuid4().hex
    aside.parent.mkdir(parents=True, exist_ok=True)
    os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove what killed processes left half built or half removed. Under `guard`."""
    used = in_use(root)
    for path in (root / BUILDING).glob("*"):
        if path.name not in used:
            shutil.rmtree(path, ignore_errors=True)


def _entries(root: Path) -> Iterator[_Entry]:
    for folder in (root / PREPARED).glob("*/*"):
        try:
            state = (folder / "entry.json").stat()
        except OSError:
            # of another version, or damaged
            state = folder.stat()
        yield _Entry(folder, sum(path.stat().st_size for path in folder.iterdir()), state.st_mtime)


@contextmanager
def room_for(root: Path, needed: int | None = None) -> Iterator[None]:
    """Turn a full disk into one clear error.

    Args:
        root: folder of the cache.
        needed: bytes about to be written, where they are known.

    Raises:
        UserError: naming the folder and the bytes needed.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        wanted = "prepared scans" if needed is None else f"a prepared scan of {needed:,} bytes"
        raise UserError(
            f"no space left for {wanted}: {error.strerror}",
            where=f"data.cache_dir: {root}",
            expected="free space there, data.cache_dir=FOLDER on another disk, or a smaller data.cache_gb",
        ) from error
