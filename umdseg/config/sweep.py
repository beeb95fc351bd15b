"""Sweeps: expand a command line into jobs, drop what a job's components lack, collapse duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from hydra.core.override_parser.types import Override

from umdseg.config.check import Checked, ConfigError, examine, refuse_missing
from umdseg.config.compose import hydra_session, parse
from umdseg.files import sha256_value


@dataclass
class Sweep:
    """What `-m` comes down to.

    Attributes:
        jobs: one checked configuration a job.
        given: the overrides of each job as a user would type them.
        notices: what was dropped or collapsed, for standard error.
    """

    jobs: list[Checked] = field(default_factory=list)
    given: list[list[str]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def expand(overrides: Sequence[Override]) -> list[list[str]]:
    """The Cartesian product of all sweep overrides, in the order of Hydra's basic sweeper."""
    columns = []
    for override in overrides:
        if override.is_sweep_override():
            key = override.get_key_element()
            columns.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            columns.append([str(override.input_line)])
    return [list(row) for row in product(*columns)]


def plan(door: str, overrides: Sequence[str], search: Sequence[str] = ()) -> Sweep:
    """Check all jobs of a sweep before the first one starts.

    An option that the component of one job lacks is dropped there with a notice, if another job has it. What
    a recipe asks for and a job's adapter has no use for is dropped there in any case.

    Raises:
        ConfigError: every mistake of every job, once.
    """
    refuse_missing(search)
    with hydra_session(search) as loader:
        parsed, problems = parse(overrides, loader)
        rows = expand(parsed)
        first = [examine(door, row, search) for row in rows]
        nowhere = set.intersection(*(set(outcome.lacking) for outcome in first)) if first else set()
        sweep = Sweep()
        seen: dict[str, int] = {}
        for row, outcome in zip(rows, first, strict=True):
            drop = [path for path in outcome.lacking if path not in nowhere]
            if drop:
                row = [text for text in row if text.lstrip("+").partition("=")[0] not in drop]
                outcome = examine(door, row, search)
            problems.extend(outcome.problems)
            key = sha256_value(outcome.plain)
            if key in seen and not outcome.problems:
                continue
            seen[key] = len(sweep.jobs)
            sweep.jobs.append(outcome)
            sweep.given.append(row)
            sweep.notices.extend(f"{' '.join(row)}: has no {path}, dropped" for path in drop)
            # of a recipe and a method, not of one job
            sweep.notices.extend(line for line in outcome.notices if line not in sweep.notices)
        if problems:
            raise ConfigError(problems)
    collapsed = len(rows) - len(sweep.jobs)
    if collapsed:
        sweep.notices.append(f"{collapsed} duplicate job{'s' if collapsed > 1 else ''} collapsed")
    return sweep
