"""Make the study's files from its runs.

    python experiments/sts_adapters/collect.py RUN [RUN ...]

Writes result.json and figure.png beside this file and prints the tables of question.md. Every patient has one
score per configuration and input; differences are of the same patients, intervals from resampling patients.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from answers import Answers, configuration, interval
from draw import draw
from questions import asked

from umdseg.evaluation.cases import on_grid, read_cases
from umdseg.evaluation.options import BASELINES
from umdseg.files import atomic, write_json

HERE = Path(__file__).parent
# a p below this is not told exactly
SMALL = 0.001
KEPT = (
    "command",
    "seed",
    "started",
    "seconds",
    "fit_seconds",
    "versions",
    "git",
    "code",
    "device",
    "weights",
    "data",
)
THRESHOLDS = {
    name: f"PET above {name.rpartition('_')[2]} % of its maximum" for name in BASELINES if "pet" in name
}
BLIND = {"pet": "blind, in the PET's and CT's cut", "mr": "blind, in the MR's", "pet+mr": "blind, in both"}


def main() -> None:
    """Read the arguments and write the study's files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--blind", type=Path, default=HERE / "blind.csv")
    parser.add_argument("--flops", type=Path, default=HERE / "flops.json")
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    answers = gathered(given.runs, given.blind)
    costs = json.loads(given.flops.read_text())
    tested = [{**one, "role": role} for role, family in asked(answers).items() for one in family]
    result: dict[str, Any] = {
        "configurations": [{**row, **costs.get(row["configuration"], {})} for row in answers.summary()],
        "differences": tested,
        "per_patient": answers.table().round(4).reset_index().to_dict("records"),
        "runs": [provenance(run) for run in given.runs],
    }
    write_json(HERE / "result.json", plain(result))
    with atomic(HERE / "figure.png") as path:
        path.write_bytes(draw(result))
    print(markdown(result))


def gathered(runs: list[Path], blind: Path) -> Answers:
    """Scores of all runs, thresholds and blind ellipsoids.

    Raises:
        SystemExit: rows of one patient are of different labels or folds.
    """
    answers, rows = Answers(), list[pd.DataFrame]()
    for run in runs:
        cases = on_grid(read_cases(run))
        cases = cases[
            (cases["structure"] == "tumour") & (cases["prompt"] == "auto") & (cases["status"] == "ok")
        ]
        rows.append(cases)
        answers.add(configuration(run), cases[~cases["model"].isin(BASELINES)])
        for name, title in THRESHOLDS.items():
            answers.put(title, "pet", cases[cases["model"] == name].set_index("subject")["dice"])
    same(pd.concat(rows))
    for field, found in pd.read_csv(blind).groupby("field"):
        answers.put(BLIND[str(field)], str(field), found.set_index("subject")["dice"])
    return answers


def same(cases: pd.DataFrame) -> None:
    """Stop where a patient was scored against several labels, or tested in several folds.

    Raises:
        SystemExit: naming the patients.
    """
    people = cases.groupby("subject")
    volume = people["volume_ref_ml"]
    odd = (volume.max() > volume.min() * (1 + 1e-6)) | (people["fold"].nunique() > 1)
    if odd.any():
        raise SystemExit(f"not one label and fold for all: {', '.join(odd.index[odd])}")
    print(
        f"{len(odd)} patients, each in one fold and against one label in {len(cases)} rows", file=sys.stderr
    )


def provenance(run: Path) -> dict[str, Any]:
    """What of a run's record is kept."""
    record = json.loads((run / "provenance.json").read_text())
    return {"configuration": configuration(run).name} | {key: record[key] for key in KEPT if key in record}


def plain(value: Any) -> Any:
    """JSON has no NaN: what is not defined is null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124


def markdown(result: dict[str, Any]) -> str:
    """The tables of question.md."""
    lines = ["| model | given | patients | Dice | TFLOP a fit |", "|---|---|---|---|---|"]
    for row in result["configurations"]:
        cost = f"{row['tflop']:.1f}" if "tflop" in row else ""
        dice = interval(row["mean"], row["ci"])
        lines.append(f"| {row['configuration']} | {row['given']} | {row['n']} | {dice} | {cost} |")
    lines += ["", "| | first | second | patients | difference | p |", "|---|---|---|---|---|---|"]
    for one in result["differences"]:
        p = "" if one["p"] is None else f"{one['p']:.3f}" if one["p"] >= SMALL else f"< {SMALL}"
        shown = interval(one["value"], one["ci"], sign=True)
        lines.append(f"| {one['role']} | {one['first']} | {one['second']} | {one['n']} | {shown} | {p} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
