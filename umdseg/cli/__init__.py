"""The `umdseg` command: the two doors, what there is, reports rendered again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from umdseg.cli.listing import KINDS, show
from umdseg.errors import UserError

DOORS = {
    "train": "measure, adapt, measure again (what train.py does)",
    "evaluate": "score a model as it is, or a saved adapter (what evaluate.py does)",
}
# commands with a parser of their own: `umdseg.cli.<name>.main(arguments) -> exit status`
COMMANDS = {
    "prepare": "DICOM or a public dataset -> images, labels and a manifest",
    "combine": "average, add or subtract saved adapters",
    "compare": "finished runs side by side: cost, scores, what was closed, won back and forgotten",
    "check": "look over configuration, data, model and machine before a run",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in DOORS:
        # the doors read their own flags, which may stand before, between and after overrides
        from umdseg.runs.door import main as door

        return door(arguments[0], arguments[1:], f"umdseg {arguments[0]}")
    if arguments and arguments[0] in COMMANDS:
        status: int = import_module(f"umdseg.cli.{arguments[0]}").main(arguments[1:])
        return status
    parser = argparse.ArgumentParser(prog="umdseg", description="Find, measure and close the modality gap.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in {**DOORS, **COMMANDS}.items():
        commands.add_parser(name, help=what)
    listing = commands.add_parser(
        "list", help="registered models, adapters, fusion, data, prompts, or known structures"
    )
    listing.add_argument(
        "what", nargs="?", choices=[*KINDS, "structures"], help="one of them; all when left out"
    )
    listing.add_argument("name", nargs="?", help="with `models`: one model, its card in full")
    listing.add_argument(
        "--matrix", action="store_true", help="with `adapters`: which method goes with which family of models"
    )
    listing.set_defaults(run=lambda given: show(given.what, given.name, matrix=given.matrix))
    report = commands.add_parser("report", help="write a run's report.html again from its case table")
    report.add_argument("folder", metavar="RUN", type=Path, help="run folder")
    report.set_defaults(run=lambda given: _report(given.folder))
    given = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = given.run
    try:
        run(given)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # `umdseg list | head` is no mistake
        sys.stderr.close()
    return 0


def _report(folder: Path) -> None:
    from umdseg.report import build_report

    if not (folder / "cases.parquet").is_file():
        raise UserError("no run there", where=folder, expected="a run folder with cases.parquet")
    print(build_report(folder))
