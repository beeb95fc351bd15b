"""`umdseg compare`: finished runs side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umdseg.errors import UserError

if TYPE_CHECKING:
    from umdseg.runs.comparison import Asked
    from umdseg.runs.lines import Line

_TEXT = """\
Finished run folders side by side: what each configuration costs, scores, closes and forgets. Runs that differ
in nothing but the fold they test are one line; copies and studies of one patient count as one patient.

  umdseg compare RUN RUN RUN                                 the table
  umdseg compare RUN ... --against SUPERVISED --out FOLDER   and what was won back of a supervised lead
  umdseg compare RUN ... --pairs                             and every line minus the first, paired
  umdseg compare FUSED PET --pair 1:ct+pet 2:pet             scans given together against one alone

A side of --pair is RUN[:MODALITY[/SUBSET][@STAGE]]; RUN is the number of a line, or one of its folders:
1:ct+pet, 1:ct+pet/ct (given CT alone), RUN:pet@zero_shot, or 1 for every input that both sides have.
--out writes comparison.csv, comparison.json and, where anything was closed or won back, pareto.png; the last
line on standard output is then the folder."""
_OUT = "--out FOLDER, one that can be made or written into"


def main(arguments: Sequence[str]) -> int:
    """Compare runs; return the exit status."""
    given = _parser().parse_intermixed_args(list(arguments))
    try:
        _refuse_place(given.out)
        result, gain = _compare(given)
        from umdseg.report.comparison import text

        print("\n".join(text(result)))
        if given.out is not None:
            _write(result, given.out, gain, given.goal)
            print(given.out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # `umdseg compare ... | head` is no mistake
        sys.stderr.close()
    return 0


def _refuse_place(folder: Path | None) -> None:
    """Before anything is computed: comparing takes time, which a folder that is none would lose."""
    from umdseg.config.places import writable

    if folder is not None and not writable(folder):
        raise UserError("the results cannot be written there", where=folder, expected=_OUT)


def _compare(given: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from umdseg.runs.comparison import Asked, compare, inputs
    from umdseg.runs.finished import FinishedRun
    from umdseg.runs.lines import lines_of

    lines, notes = lines_of([FinishedRun.read(path) for path in given.runs])
    against, more = lines_of([FinishedRun.read(path) for path in given.against])
    asked = Asked(given.metric, given.grid, tuple(given.modality), tuple(given.prompt), given.bootstrap)
    result = compare(lines, against, asked)
    result["notes"] = list(dict.fromkeys([*notes, *more, *result["notes"]]))
    if given.pairs or given.pair:
        result |= _pairs(lines, given, asked, result, inputs(lines, asked))
    return result, "won_back" if against else "closure"


def _pairs(
    lines: Sequence[Line],
    given: argparse.Namespace,
    asked: Asked,
    result: dict[str, Any],
    wanted: Sequence[str],
) -> dict[str, Any]:
    from umdseg.runs.pairs import adjusted, against_first, differences, side

    sides = [(side(first, lines), side(second, lines)) for first, second in given.pair]
    found: dict[str, Any] = {"pairs": adjusted(differences(sides, asked))} if sides else {}
    if given.pairs:
        entries, notes = against_first(lines, asked, wanted)
        found |= {"against_first": entries, "notes": [*result["notes"], *notes]}
    return found


def _write(result: dict[str, Any], folder: Path, gain: str, goal: float | None) -> None:
    try:
        _write_files(result, folder, gain, goal)
    except OSError as error:
        what = f"the results cannot be written there: {error.strerror or error}"
        raise UserError(what, where=folder, expected=_OUT) from error


def _write_files(result: dict[str, Any], folder: Path, gain: str, goal: float | None) -> None:
    from umdseg.files import atomic, write_json
    from umdseg.report.comparison import frame
    from umdseg.report.pareto import pareto

    write_json(folder / "comparison.json", result)
    with atomic(folder / "comparison.csv") as temporary:
        frame(result["rows"]).to_csv(temporary, index=False)
    image = pareto(result["rows"], gain, goal)
    if image is None:
        print(f"no pareto.png: {gain.replace('_', ' ')} is not defined anywhere", file=sys.stderr)
        # one of an earlier call would stand beside numbers it does not show
        (folder / "pareto.png").unlink(missing_ok=True)
        return
    with atomic(folder / "pareto.png") as temporary:
        temporary.write_bytes(image)


def _parser() -> argparse.ArgumentParser:
    from umdseg.evaluation.cases import SCORE_GRIDS
    from umdseg.metrics import METRICS

    parser = argparse.ArgumentParser(
        prog="umdseg compare", description=_TEXT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folder of a finished run")
    parser.add_argument(
        "--against",
        metavar="RUN",
        nargs="+",
        type=Path,
        default=[],
        help="supervised models (stage supervised, or adapter=full), one per target modality or its folds",
    )
    parser.add_argument("--pairs", action="store_true", help="every line minus the first, same inputs")
    parser.add_argument(
        "--pair",
        nargs=2,
        action="append",
        default=[],
        metavar=("SIDE", "SIDE"),
        help="one minus another; repeatable",
    )
    parser.add_argument(
        "--modality", nargs="+", default=[], help="pet, ct+pet, ct+pet/ct; default: all but the reference"
    )
    parser.add_argument("--prompt", nargs="+", default=[], help="auto, point, ...; default: all")
    parser.add_argument("--metric", choices=METRICS, default="dice", help="default: dice")
    parser.add_argument("--grid", choices=SCORE_GRIDS, default="label", help="default: label")
    parser.add_argument("--bootstrap", type=_resamples, metavar="N", help="resamples of the intervals")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="folder to write into")
    parser.add_argument("--goal", type=float, help="horizontal line in pareto.png (0.8, say)")
    return parser


def _resamples(text: str) -> int:
    number = int(text)
    if number < 100:
        raise argparse.ArgumentTypeError("at least 100")
    return number
