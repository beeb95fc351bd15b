"""Where a result comes from: versions, code, data, weights, command. No names of people or machines."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import umdseg
from umdseg.config.schema import Settings
from umdseg.runs.identity import code_hash, git_commit

PACKAGES = ("torch", "lightning", "monai", "peft", "hydra-core", "numpy", "nibabel", "scipy", "pandas")


def provenance(settings: Settings, door: str, run: str, **facts: Any) -> dict[str, Any]:
    """The content of provenance.json at the start of a run.

    Args:
        settings: checked configuration.
        door: `train` or `evaluate`.
        run: the run's hash.
        facts: further entries (data, weights, adapter).
    """
    return {
        "status": "running",
        "task": settings.run.task,
        "run": run,
        "command": command(door, settings),
        "seed": settings.run.seed,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "git": git_commit(),
        "code": code_hash(),
        "device": device(),
        **facts,
    }


def command(door: str, settings: Settings) -> str:
    """What to type for the same run: the door's file in a checkout, `umdseg train` where it was used."""
    called = Path(sys.argv[0] if sys.argv else "").stem
    program = ["umdseg", door] if called in ("umdseg", "__main__") else ["python", f"{door}.py"]
    return shlex.join([*program, *flags(settings.search), *settings.overrides])


def flags(search: Sequence[str]) -> list[str]:
    """Further configuration folders as they are typed."""
    return [word for folder in search for word in ("--config-dir", folder)]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages results depend on."""
    found = {"umdseg": umdseg.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def device() -> str:
    """The kind of device at hand: a GPU's model name, or the processor architecture."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})"
