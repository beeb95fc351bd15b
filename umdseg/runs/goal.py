"""The supervised models that adapters are held against (`--against`), one chosen per modality."""

from __future__ import annotations

from collections.abc import Sequence

from umdseg.errors import UserError
from umdseg.evaluation.inputs import parts_of
from umdseg.evaluation.selection import holds
from umdseg.runs.lines import Line


def refuse_unsupervised(lines: Sequence[Line]) -> None:
    """Refuse what is no goal.

    Raises:
        UserError: a run that is neither supervised nor full tuning.
    """
    for line in lines:
        if not _is_goal(line):
            raise UserError(
                f"not a supervised model: {line.label}",
                where=", ".join(line.names),
                expected="with --against runs whose rows are of stage supervised, or of adapter=full",
            )


def goal_for(column: str, lines: Sequence[Line]) -> Line | str:
    """The goal of one input, or why there is none.

    Of several that were trained on its scans the one that was trained on the fewest others counts.

    Args:
        column: `pet`, `ct+pet`.
        lines: the runs named by `--against`.

    Raises:
        UserError: two goals that nothing sets apart.
    """
    takes, _ = parts_of(column)
    held = [line for line in lines if holds(line.cases, column)]
    fitting = [line for line in held if _trained_on(line, takes)]
    if not fitting:
        why = "was trained on it" if held else "has scores of it"
        return f"no --against run {why}"
    fewest = min(_breadth(line) for line in fitting)
    best = [line for line in fitting if _breadth(line) == fewest]
    if len(best) > 1:
        raise UserError(
            f"two goals for {column}",
            where="; ".join(f"{line.label}: {', '.join(line.names)}" for line in best),
            expected="one --against run per target modality (or its folds)",
        )
    return best[0]


def _is_goal(line: Line) -> bool:
    run = line.first
    full = run.stage == "adapted" and run.method == "full" and not run.settings.get("adapter.targets")
    return run.stage == "supervised" or full


def _trained_on(line: Line, modalities: Sequence[str]) -> bool:
    known = line.first.trained_on
    return known is None or set(modalities) <= known


def _breadth(line: Line) -> int:
    known = line.first.trained_on
    return 0 if known is None else len(known)
