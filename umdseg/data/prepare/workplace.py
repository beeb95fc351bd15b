"""Subject folders are built out of sight and appear whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from umdseg.errors import UserError

_NAME = ".prepare-"


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """A hidden folder to build in; those that killed processes left are removed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"OUT cannot be made ({error.strerror})"
        raise UserError(what, where=out, expected="a folder this user may write into") from error
    for old in out.glob(f"{_NAME}*"):
        if not _alive(old.name.removeprefix(_NAME)):
            shutil.rmtree(old)
    place = out / f"{_NAME}{os.getpid()}"
    try:
        place.mkdir()
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def put_in_place(folder: Path, final: Path) -> None:
    """Rename a built folder to its final name; what was there goes."""
    if final.exists():
        # renamed first: a folder that is being deleted must not look finished
        old = folder.with_name(f"{folder.name}-old")
        final.rename(old)
        folder.rename(final)
        shutil.rmtree(old)
    else:
        folder.rename(final)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, ValueError):
        return False
    return int(pid) != os.getpid()
