"""Where a model's files lie is no part of what a run is; what they say is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umdseg.files import sha256_file, sha256_value

# what of a model's folder is not in its tensors (those are hashed whatever file they came in)
DESCRIPTIONS = ("plans.json", "dataset.json", "inference_info.json", "inference_session_class.json")


def by_content(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings (config path -> value) with the content of a model's files in place of their paths.

    - `model.folder`: the plans and descriptions in it, wherever below it they lie;
    - `model.card`, and `model.module` where it is a file: their content;
    - `evaluation.supervised`: the case tables of the runs;
    - `model.embeddings`: nothing; the numbers are hashed with the model's tensors, as are `model.weights`.

    What is not there stays as it is written; building the model says so.
    """
    found = {key: value for key, value in flat.items() if key != "model.embeddings"}
    if runs := found.get("evaluation.supervised"):
        found["evaluation.supervised"] = [_content(str(Path(run) / "cases.parquet")) for run in runs]
    folder, card, module = (found.get(f"model.{name}") for name in ("folder", "card", "module"))
    if folder:
        found["model.folder"] = _descriptions(Path(folder).expanduser())
    if card:
        found["model.card"] = _content(str(card))
    if module:
        place, colon, name = str(module).rpartition(":")
        found["model.module"] = f"{_content(place)}{colon}{name}" if place.endswith(".py") else module
    return found


def _descriptions(folder: Path) -> str:
    if not folder.is_dir():
        return str(folder)
    files = [path for name in DESCRIPTIONS for path in folder.rglob(name)]
    return sha256_value(sorted([path.name, sha256_file(path)] for path in files))


def _content(path: str) -> str:
    file = Path(path).expanduser()
    return sha256_file(file) if file.is_file() else path
