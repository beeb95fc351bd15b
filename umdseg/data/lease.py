"""Which entries of a cache living processes use: a killed process's lease ends with it."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from umdseg.errors import UserError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Lease:
    """Names that one process uses, in a file that is locked as long as the process lives.

    The kernel frees the lock however the process ends. Forked workers share the file and its lock; a
    pickled lease starts anew.

    Args:
        root: folder of the cache.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._file: int | None = None
        self._held: set[str] = set()

    def __reduce__(self) -> tuple[type[Lease], tuple[Path]]:
        return Lease, (self.root,)

    def hold(self, name: str) -> None:
        """Keep `name` from being removed by others.

        Raises:
            UserError: the file system has no locks.
        """
        if name in self._held:
            return
        with guard(self.root, shared=True):
            if self._file is None:
                path = _folder(self.root) / f"lease-{uuid.uuid4().hex}"
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
                weakref.finalize(self, os.close, self._file)
                fcntl.flock(self._file, fcntl.LOCK_EX)
            os.write(self._file, f"{name}\n".encode())
        self._held.add(name)


@contextmanager
def guard(root: Path, shared: bool = False) -> Iterator[None]:
    """Keep the set of entries still: whoever removes any holds this alone, whoever takes one shares it.

    Raises:
        UserError: the file system has no locks.
    """
    _folder(root).mkdir(parents=True, exist_ok=True)
    handle = os.open(_folder(root) / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, root)
        yield
    finally:
        os.close(handle)


def in_use(root: Path) -> set[str]:
    """Names that living processes hold; to be asked under `guard`. Leases of dead processes are removed."""
    names: set[str] = set()
    for path in _folder(root).glob("lease-*"):
        # in a cache shared by several users another's lease may be read only
        handle = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        except OSError:
            # locked: its process lives; and so it is taken to where that cannot be found out
            names.update(path.read_text(encoding="utf-8").split("\n"))
        finally:
            os.close(handle)
    return names - {""}


def _folder(root: Path) -> Path:
    return root / "use"


def _lock(handle: int, how: int, root: Path) -> None:
    try:
        fcntl.flock(handle, how)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise UserError(
            f"files cannot be locked here: {error.strerror}",
            where=f"data.cache_dir: {root}",
            expected="a folder on a file system with locks, such as a local disk",
        ) from error
