"""Run the benchmarks, all or those named, and put what they found into RESULTS.md.

    make bench                          all of them
    python benchmarks/run.py data       one

A benchmark is a script beside this one that answers one question and prints its section: a heading `## ...`
and what stands below it. Sections of benchmarks that were not run stay as they were measured.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
TITLE = "# Benchmarks\n"


def names() -> list[str]:
    """The benchmarks there are."""
    return sorted(path.stem for path in HERE.glob("*.py") if path != Path(__file__))


def merged(text: str, section: str) -> str:
    """`text` with its section of the same heading replaced, or the section added at the end."""
    head = section.splitlines()[0]
    parts = re.split(r"(?m)^(?=## )", text)
    kept = [section if part.splitlines()[:1] == [head] else part for part in parts]
    return "\n\n".join(part.strip() for part in (kept if section in kept else [*kept, section])) + "\n"


def main(wanted: list[str]) -> int:
    """Run benchmarks one after the other."""
    odd = [name for name in wanted if name not in names()]
    if odd:
        print(f"no benchmark '{odd[0]}'; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    for name in wanted or names():
        print(f"benchmark {name}", file=sys.stderr)
        command = [sys.executable, str(HERE / f"{name}.py")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        section = done.stdout[done.stdout.index("## ") :]
        text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else TITLE
        RESULTS.write_text(merged(text, section), encoding="utf-8")
    print(RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
