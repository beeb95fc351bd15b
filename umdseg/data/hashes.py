"""Content hashes of large files, computed once and remembered by path, size and time of change."""

from __future__ import annotations

import os
from pathlib import Path

from umdseg.files import sha256_file, sha256_value, write_text


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """Folder of everything that can be computed again: the given one, $UMDSEG_CACHE or ~/.cache/umdseg."""
    chosen = cache_dir or os.environ.get("UMDSEG_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "umdseg"


def file_hash(path: Path | str, cache_dir: str | Path | None = None) -> str:
    """SHA-256 of a file's content; unchanged files are not read again.

    One small file per hash, so that processes working at the same time never lose each other's.
    """
    path = Path(path).resolve()
    state = path.stat()
    key = sha256_value([str(path), state.st_size, state.st_mtime_ns])
    note = cache_root(cache_dir) / "hashes" / key[:2] / key
    if note.is_file():
        return note.read_text(encoding="utf-8").strip()
    digest = sha256_file(path)
    write_text(note, digest)
    return digest
