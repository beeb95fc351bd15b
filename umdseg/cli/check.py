"""umdseg check: look over configuration, data, model and machine before a run."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

EPILOG = """examples:
  umdseg check data=petct data.manifest=subjects.csv
  umdseg check --deep --qc pictures data=petct data.manifest=subjects.csv model=vista3d
  umdseg check --probe model=torch_module model.module=net.py:Net model.card=card.yaml model.weights=net.pt
  umdseg check --door evaluate adapter.path=RUN/adapter data=sts data.root=FOLDER data.split=all

Without --deep only headers are read. The estimate of memory (activations in float32), time and disk is
good to a factor of two or three, at the pace the machine has right now; what it rests on stands beside it.
Exit status: 0 nothing refused (warnings allowed), else 1."""


def main(arguments: Sequence[str]) -> int:
    """Run `umdseg check`; return the exit status."""
    given = _parser().parse_intermixed_args(list(arguments))
    if given.qc and not given.deep:
        print("--qc draws what --deep reads: add --deep", file=sys.stderr)
        return 1
    from umdseg.preflight.look import look
    from umdseg.preflight.table import table
    from umdseg.runs.trainer import silence

    silence()
    # standard output is for the table alone, whatever libraries print
    with redirect_stdout(sys.stderr):
        checks = look(given.door, given.overrides, given.config_dir, given.deep, given.qc, given.probe)
    table(checks, shlex.join(["umdseg", given.door, *given.overrides]), sys.stdout, given.verbose, given.deep)
    return int(any(check.level == "refuse" for check in checks))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="umdseg check",
        description="Look over configuration, data, model and machine before a run; all problems at once.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", help="the overrides of the run, as train.py takes them")
    parser.add_argument("--door", choices=["train", "evaluate"], default="train", help="which run is checked")
    parser.add_argument("--deep", action="store_true", help="read the voxels of all scans and labels too")
    parser.add_argument("--qc", type=Path, metavar="DIR", help="with --deep: one picture per subject there")
    parser.add_argument(
        "--probe",
        action="store_true",
        help="segment a phantom, as is and distorted: are orientation and intensities of the card right?",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="name every file of every problem")
    parser.add_argument(
        "--config-dir", action="append", default=[], metavar="DIR", help="further folder of YAML files"
    )
    return parser
