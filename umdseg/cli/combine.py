"""`umdseg combine`: several saved adapters -> one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from umdseg.errors import UserError

_TEXT = """\
Writes the weighted sum of saved adapters of one method on one base as an adapter folder of its own, with
a card that says what it was made of.

  umdseg combine A B --out C                          average (equal weights)
  umdseg combine A B --weights 0.7 0.3 --out C        weighted average
  umdseg combine A B --weights 1 -1 --out C           what A does and B does not (task arithmetic)
  umdseg combine RUN/adapter/pet RUN/adapter/mr --out C    adapters of one routed run

Sums are exact: of LoRA the factors stand side by side, so that ranks add up (averaged factors would not
be averaged updates). --how parameters averages stored tensors instead; the rank stays.
The last line on standard output is the new folder; `adapter.path=C` scores it."""


def main(arguments: Sequence[str]) -> int:
    """Combine adapters; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="umdseg combine", description=_TEXT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("adapters", metavar="ADAPTER", nargs="+", type=Path, help="folder of a saved adapter")
    parser.add_argument("--weights", type=float, nargs="+", help="one per adapter; equal when left out")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="folder to write")
    parser.add_argument("--how", choices=("exact", "parameters"), default="exact", help="default: exact")
    given = parser.parse_args(arguments)
    try:
        from umdseg.adapters.combine import combine

        count = len(given.adapters)
        weights = given.weights or [1 / count] * count
        card = combine(given.adapters, weights, given.out, given.how)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    listed = " + ".join(f"{part['weight']:g} x {part['folder']}" for part in card.parts)
    what = f"{card.method} on {card.base_model}: {listed}, {card.trainable:,} parameters"
    print(what, file=sys.stderr)
    print(given.out)
    return 0
