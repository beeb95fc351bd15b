"""Make a committed study's files from its runs.

    python experiments/collect.py FOLDER RUN [RUN ...]

Merges the runs' case tables (folds of one cross-validation, or one run), computes the gap over all
subjects and writes into FOLDER: result.json (gap.json's content, mean scores, commands, versions),
figure.png (gaps before and after, structures), overlays.png (one subject of the first run).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from umdseg.evaluation.cases import on_grid, read_cases
from umdseg.evaluation.gap import gap
from umdseg.evaluation.options import BASELINES
from umdseg.evaluation.predictions import median_subjects
from umdseg.evaluation.summary import MACRO, summarise
from umdseg.files import atomic, write_json
from umdseg.report.figures import gap_forest, organ_dots
from umdseg.report.overlays import overlay

KEPT = (
    *("command", "run", "seed", "started", "seconds"),
    *("versions", "git", "code", "device", "weights", "data"),
)


def main() -> None:
    """Read the arguments and write the study's files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    cases = pd.concat([read_cases(run) for run in given.runs], ignore_index=True)
    result: dict[str, Any] = gap(cases)
    result["adapter"] = json.loads((given.runs[0] / "gap.json").read_text())["adapter"]
    summary = summarise(cases)
    result["scores"] = [_plain(row) for row in summary.to_dict("records")]
    result["per_subject"] = _per_subject(cases)
    result["runs"] = [_provenance(run) for run in given.runs]
    write_json(given.folder / "result.json", result)
    for prompt in dict.fromkeys(cases["prompt"]):
        own = summary[~summary["model"].isin(BASELINES)]
        _write(given.folder / f"organs_{prompt}.png", organ_dots(own, str(prompt)))
    _write(given.folder / "figure.png", gap_forest(result["gaps"]))
    for subject in median_subjects(read_cases(given.runs[0]), 1):
        drawn = overlay(given.runs[0] / "predictions", subject, cases)
        _write(given.folder / "overlays.png", drawn[0] if drawn else None)
    print(summary[summary["structure"] == MACRO].to_string(index=False))


def _per_subject(cases: pd.DataFrame) -> list[dict[str, Any]]:
    keys = ["subject", "modality", "model", "adapter", "stage", "prompt"]
    ok = on_grid(cases[cases["status"] == "ok"])
    rows = ok.groupby(keys, sort=True)["dice"].mean().round(4).reset_index()
    return [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    # JSON has no NaN: an interval that is not defined is null
    return {str(k): None if isinstance(v, float) and v != v else v for k, v in row.items()}  # noqa: PLR0124


def _provenance(run: Path) -> dict[str, Any]:
    record = json.loads((run / "provenance.json").read_text())
    return {key: record[key] for key in KEPT if key in record}


def _write(path: Path, image: bytes | None) -> None:
    if image is not None:
        with atomic(path) as temporary:
            temporary.write_bytes(image)


if __name__ == "__main__":
    main()
