"""What makes a run the same run: settings, code, data and weights."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import umdseg
from umdseg.config.check import flatten
from umdseg.config.schema import Settings
from umdseg.files import sha256_file, sha256_value
from umdseg.runs.places import by_content

# where results go, how they are shown, and where inputs lie (their content is hashed instead)
BESIDE_THE_POINT = (
    *("runs_dir", "name", "tags", "resume", "callbacks.progress_every", "callbacks.checkpoint_every"),
    *("data.root", "data.manifest", "data.cache_dir", "data.cache_gb", "data.workers"),
    *("model.accept_licence", "data.structures_file", "data.labels", "data.labels_dir"),
    *("adapter.path", "fusion.path", "trainer.log_every_n_steps"),
    *("save_predictions", "evaluation.save_predictions", "evaluation.overlay_subjects"),
)
FOR_FITTING = ("fit.", "callbacks.", "ckpt_path")


def essential(settings: Settings) -> dict[str, Any]:
    """The settings that change the result, config path -> value."""
    flat = {k: v for k, v in by_content(flatten(settings)).items() if not k.startswith("logger.")}
    if settings.run.task == "evaluate":
        flat = {k: v for k, v in flat.items() if not k.startswith(FOR_FITTING)}
    weights = flat.pop("model.weights")
    flat["model.random"] = weights == "random"
    if flat.get("ckpt_path"):
        flat["ckpt_path"] = sha256_file(Path(flat["ckpt_path"]).expanduser())
    return {k: v for k, v in flat.items() if k not in BESIDE_THE_POINT}


def run_hash(settings: Settings, data: str, weights: str | None, adapter: str | None = None) -> str:
    """Eight hexadecimal digits of settings, code, data and weights.

    Args:
        settings: checked configuration.
        data: fingerprint of the dataset.
        weights: hash of the base weights.
        adapter: hash of a saved adapter that is scored.
    """
    parts = {"config": essential(settings), "code": code_hash(), "data": data}
    return sha256_value({**parts, "weights": weights, "adapter": adapter})[:8]


@cache
def code_hash() -> str:
    """SHA-256 over the package's own source files.

    The content itself, because it also covers uncommitted changes and installed packages; the git
    commit stands in the provenance.
    """
    root = Path(umdseg.__file__).resolve().parent
    files = sorted(path for kind in ("*.py", "*.csv") for path in root.rglob(kind))
    return sha256_value({path.relative_to(root).as_posix(): sha256_file(path) for path in files})


def folder_hash(folder: Path) -> str:
    """SHA-256 over the files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_value({path.relative_to(folder).as_posix(): sha256_file(path) for path in files})


@cache
def git_commit() -> dict[str, Any] | None:
    """Commit and cleanliness of the checkout the package lies in; None when it is installed."""
    root = Path(umdseg.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str | None:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except OSError:
        return None
