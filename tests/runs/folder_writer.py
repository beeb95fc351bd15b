"""Run folders by hand: case tables of chosen scores, and the records that comparing reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import yaml

from umdseg.evaluation import gap, write_cases
from umdseg.evaluation.cases import case_table

SETTINGS = {
    "task": "train",
    "seed": 0,
    "name": None,
    "model": {"name": "vista3d_tiny", "weights": None},
    "adapter": {"name": "lora", "path": None, "per": None, "targets": None, "rank": 8, "alpha": 16},
    "fusion": {"name": "none"},
    "data": {
        "name": "petct",
        "manifest": "subjects.csv",
        "split": "test",
        "reference": "ct",
        "fold": 0,
        "train_modalities": {"ct": 0.0, "pet": 1.0, "mr": 0.0},
    },
    "fit": {"steps": 200, "lr": None},
    "evaluation": {"bootstrap": 300, "tolerance_mm": 2.0},
}


def rows(
    scores: Mapping[tuple[str, str], Sequence[float | None]],
    subjects: Sequence[str] | None = None,
    structures: Sequence[str] = ("liver",),
    volume: float = 100.0,
    **more: object,
) -> list[dict]:
    """Rows of a case table.

    Args:
        scores: (stage, column) -> Dice per subject, the same for all structures; None = not scored. Columns
            are `pet`, `ct+pet`, or `ct+pet/ct` for what was made of CT alone.
        subjects: their names.
        structures: their names.
        volume: of the reference, ml.
        more: further columns of all rows.
    """
    found = []
    for (stage, column), values in scores.items():
        modality, _, subset = column.partition("/")
        joint = "+" in modality
        for place, value in enumerate(values):
            head = {
                "dataset": "petct",
                "subject": subjects[place] if subjects else f"s{place}",
                "modality": modality,
                "subset": subset or modality if joint else "",
                "stage": stage,
                "model": "vista3d_tiny",
                "adapter": "none" if stage == "zero_shot" else "lora",
                "fusion": "late" if joint else "none",
                "prompt": "auto",
                "score_grid": "label",
                "volume_ref_ml": volume + place,
            }
            score = {"dice": value, "status": "ok"} if value is not None else {"status": "class_unknown"}
            found += [{**head, **score, "structure": name, **more} for name in structures]
    return found


def folder(
    path: Path,
    table: list[dict] | pd.DataFrame,
    settings: Mapping[str, object] | None = None,
    *,
    adapter: Mapping[str, object] | None = None,
    result: Mapping[str, object] | None = None,
    **provenance: object,
) -> Path:
    """A finished run.

    Args:
        path: where.
        table: its case table.
        settings: config path -> value where that differs from `SETTINGS`.
        adapter: gap.json's entry.
        result: further entries of gap.json.
        provenance: further entries of provenance.json.
    """
    config = json.loads(json.dumps(SETTINGS))
    for name, value in (settings or {}).items():
        *above, last = name.split(".")
        node = config
        for part in above:
            node = node[part]
        node[last] = value
    cases = case_table(table)
    write_cases(cases, path)
    told = {**gap(cases, 300), "adapter": adapter or {"trainable": 1000, "total": 100_000}, **(result or {})}
    (path / "gap.json").write_text(json.dumps(told))
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    record = {
        "status": "complete",
        "code": "c0de",
        "weights": {"model": "vista3d_tiny", "state_sha256": "weights"},
        "data": {"name": config["data"]["name"], "fingerprint": f"data{config['data']['fold']}"},
    }
    (path / "provenance.json").write_text(json.dumps({**record, **provenance}))
    return path
