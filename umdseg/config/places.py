"""Files and folders a configuration names: is what is read there, can what is written be written?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from umdseg.config.values import Problem
from umdseg.data.hashes import cache_root


def place_problems(flat: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems of paths, given as config path -> value; nothing is created."""
    yield from _folder("runs_dir", flat["runs_dir"], "a folder that can be written")
    cache = flat.get("data.cache_dir")
    hint = "a folder that can be written: data.cache_dir=FOLDER, or $UMDSEG_CACHE"
    yield from _folder("data.cache_dir", cache or cache_root(), hint)
    if flat["task"] == "evaluate":
        return
    exported = flat.get("fit.export_weights")
    if exported:
        yield from _exported(Path(exported).expanduser())
    checkpoint = flat.get("ckpt_path")
    if checkpoint and not Path(checkpoint).expanduser().is_file():
        yield Problem("ckpt_path", f"'{checkpoint}'", "a file that exists, such as RUN/checkpoints/last.ckpt")


def _exported(path: Path) -> Iterator[Problem]:
    """Weights are safetensors, whatever the name says, so the name has to say so."""
    if path.suffix != ".safetensors":
        expected = "a file name that ends in .safetensors, which is what is written"
        near = str(path.with_suffix(".safetensors")) if path.name else None
        yield Problem("fit.export_weights", f"'{path}'", expected, near)
    else:
        yield from _folder("fit.export_weights", path.parent, "a file in a folder that can be written")


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself where it is still missing."""
    folder = folder.expanduser().resolve()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _folder(path: str, folder: str | Path, expected: str) -> Iterator[Problem]:
    if not writable(Path(folder)):
        yield Problem(path, f"'{folder}'", expected)
