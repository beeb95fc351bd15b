"""One experiment under several seeds: mean and spread of what gap.json says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

_NUMBERS = {"gaps": "gap", "closure": "value", "forgetting": "value", "excess": "value"}
_HEAD = ("reference", "target", "modality", "metric", "prompt", "stage")


def across_seeds(runs: Sequence[tuple[Sequence[str], Path]]) -> list[dict[str, Any]]:
    """Means over runs that differ in nothing but their seed.

    The spread is over what the seed decides: order of patches, prompts, initial values, who is among few
    shots. Where the data are the same, it says how far a fit can be repeated, and stands beside the intervals
    of each run, which are over patients. Where the seed also makes the data (phantoms) or deals them
    (data.folds, data.val_share), the spread is over people, too, and `same_data` is False.

    Args:
        runs: overrides and folder of each finished run.

    Returns:
        One entry per group of two or more runs: `{"overrides": [...], "seeds": ["0", "1"], "same_data": True,
        "numbers": [{"kind": "closure", "reference": "ct", ..., "mean": 0.7, "sd": 0.02, "values": [0.68,
        0.72]}, ...]}`. Numbers that are undefined in one of the runs are left out; `same_data` is None where
        a run does not say what it read.
    """
    groups: dict[tuple[str, ...], dict[str, Path]] = {}
    for overrides, folder in runs:
        seed = next((text.partition("=")[2] for text in overrides if _is_seed(text)), "0")
        rest = tuple(text for text in overrides if not _is_seed(text))
        groups.setdefault(rest, {})[seed] = folder
    found = []
    for rest, folders in groups.items():
        if len(folders) > 1:
            numbers = list(_means([dict(_numbers(folder)) for folder in folders.values()]))
            head = {"overrides": list(rest), "seeds": list(folders)}
            found.append({**head, "same_data": _same_data(list(folders.values())), "numbers": numbers})
    return found


def told(groups: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a sweep over seeds came to, in lines for people."""
    for group in groups:
        what = " ".join(group["overrides"]) or "defaults"
        also = ", which also changed the subjects or their split" if group["same_data"] is False else ""
        yield f"{len(group['seeds'])} seeds, {what}: mean ± sd over seeds{also}"
        for number in group["numbers"]:
            head = [number[key] for key in _HEAD if key in number]
            yield f"  {number['kind']} {' '.join(head)}: {number['mean']:.3f} ± {number['sd']:.3f}"


def _is_seed(override: str) -> bool:
    return override.lstrip("+").startswith("seed=")


def _same_data(folders: Sequence[Path]) -> bool | None:
    """Whether runs read the same scans, dealt alike; the fingerprint of their data covers both."""
    told = [_json(folder / "provenance.json").get("data", {}).get("fingerprint") for folder in folders]
    return None if None in told else len(set(told)) == 1


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _numbers(folder: Path) -> Iterator[tuple[tuple[tuple[str, str], ...], float]]:
    result = _json(folder / "gap.json")
    lists = [(kind, kind, result.get(kind, [])) for kind in _NUMBERS]
    lists.append(
        ("forgetting", "forgetting of old structures", result.get("old_structures", {}).get("forgetting", []))
    )
    for kind, name, entries in lists:
        for entry in entries:
            value = entry[_NUMBERS[kind]]
            if value is not None:
                head = tuple((key, str(entry[key])) for key in _HEAD if key in entry)
                yield (("kind", name.removesuffix("s") if name == "gaps" else name), *head), float(value)


def _means(runs: Sequence[Mapping[tuple[tuple[str, str], ...], float]]) -> Iterator[dict[str, Any]]:
    for head in runs[0]:
        if all(head in run for run in runs):
            values = [run[head] for run in runs]
            yield {**dict(head), "mean": fmean(values), "sd": stdev(values), "values": values}
