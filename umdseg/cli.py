"""The `umdseg` command: list what there is, render reports again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from umdseg import registry
from umdseg.errors import UserError

KINDS = {"models": "model", "adapters": "adapter", "data": "data", "prompts": "prompt"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="umdseg", description="Find, measure and close the modality gap.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser(
        "list", help="registered models, adapters, data, prompts, or known structures"
    )
    listing.add_argument(
        "what", nargs="?", choices=[*KINDS, "structures"], help="one of them; all when left out"
    )
    listing.set_defaults(run=lambda given: _list(given.what))
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


def _list(what: str | None) -> None:
    for title in [what] if what else [*KINDS, "structures"]:
        print(f"{title}:" if what is None else "", end="\n" if what is None else "")
        for name in structures() if title == "structures" else registry.names(KINDS[title]):
            print(f"  {name}" if what is None else name)


def structures() -> list[str]:
    """Canonical names of all known structures."""
    from umdseg.anatomy import structures as known

    return list(known())


def _report(folder: Path) -> None:
    from umdseg.report import build_report

    if not (folder / "cases.parquet").is_file():
        raise UserError("no run there", where=folder, expected="a run folder with cases.parquet")
    print(build_report(folder))
