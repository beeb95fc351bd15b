"""Lines of a comparison: one per configuration, the folds of a cross-validation together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from umdseg.errors import UserError
from umdseg.evaluation.inputs import JOINT
from umdseg.runs.finished import FinishedRun
from umdseg.vocabulary import MODALITIES

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Line:
    """One configuration.

    Attributes:
        number: from 1, as it is shown.
        runs: one, or one per fold.
        cases: their case tables together.
        label: what it is called among the others.
    """

    number: int
    runs: tuple[FinishedRun, ...]
    cases: pd.DataFrame
    label: str = ""

    @property
    def first(self) -> FinishedRun:
        """Its configuration, but for the fold, is that of all."""
        return self.runs[0]

    @property
    def names(self) -> list[str]:
        """Names of the run folders."""
        return [run.path.resolve().name for run in self.runs]

    @property
    def folds(self) -> list[int]:
        """The folds tested; empty without folds."""
        return [run.fold for run in self.runs if run.fold is not None]

    @property
    def seed(self) -> int:
        """Of the runs."""
        return int(self.first.settings.get("seed") or 0)

    @property
    def fusion(self) -> str:
        """Registered name of the fusion."""
        return str(self.first.settings.get("fusion.name") or "none")

    def patients(self) -> dict[str, str]:
        """Subject -> patient."""
        return {subject: patient for run in self.runs for subject, patient in run.patients().items()}

    def cost(self) -> dict[str, Any]:
        """What is trained, and how long that took; what the runs do not say alike is None.

        `trainable` counts adapter and fusion, `one_route` what a single scan of one modality needs of it: one
        of several adapters, and the fusion. `fit_seconds` is the mean over folds.
        """
        costs = [_parameters(run.result) for run in self.runs]
        alike = {k: v if all(cost[k] == v for cost in costs) else None for k, v in costs[0].items()}
        seconds = [run.provenance.get("fit_seconds") for run in self.runs]
        fitted = self.first.settings.get("task") != "evaluate" and self.first.stage != "zero_shot"
        known = [float(value) for value in seconds if value is not None]
        whole = fitted and len(known) == len(seconds)
        steps = self.first.settings.get("fit.steps") if fitted else None
        return {**alike, "steps": steps, "fit_seconds": fmean(known) if whole else None}


def lines_of(runs: Sequence[FinishedRun]) -> tuple[list[Line], list[str]]:
    """Runs as lines, in the order given, and what has to be said about them.

    Runs that differ in nothing but their fold are one line. Where a fold is there twice they stay apart.

    Raises:
        UserError: one run twice, or a subject that two folds of one line both test.
    """
    _refuse_twice(runs)
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(run.key, []).append(run)
    lines: list[Line] = []
    notes: list[str] = []
    for group in groups.values():
        folds = [run.fold for run in group]
        whole = None not in folds and len(set(folds)) == len(folds)
        if len(group) > 1 and not whole:
            names = ", ".join(run.path.resolve().name for run in group)
            notes.append(f"one configuration and not one run per fold, so not put together: {names}")
        ordered = sorted(group, key=lambda run: run.fold or 0) if whole else group
        for part in [ordered] if whole else [[run] for run in ordered]:
            lines.append(Line(len(lines) + 1, tuple(part), _joined(part)))
    labels = _labels(lines)
    notes += [f"line {line.number}: {told}" for line in lines if (told := _versions(line))]
    return [replace(line, label=label) for line, label in zip(lines, labels, strict=True)], notes


def _refuse_twice(runs: Iterable[FinishedRun]) -> None:
    seen: set[Path] = set()
    for run in runs:
        if run.path.resolve() in seen:
            raise UserError("one run is named twice", where=run.path, expected="every run once")
        seen.add(run.path.resolve())


def _joined(runs: Sequence[FinishedRun]) -> pd.DataFrame:
    """Case tables of folds, each subject in one of them."""
    import pandas as pd

    tested: dict[str, FinishedRun] = {}
    for run in runs:
        for subject in map(str, run.cases["subject"].unique()):
            other = tested.setdefault(subject, run)
            if other is not run:
                raise UserError(
                    f"subject {subject} is tested in two folds of one study",
                    where=f"{other.path}, {run.path}",
                    expected="folds of one dataset, dealt the same way",
                )
    return pd.concat([run.cases for run in runs], ignore_index=True)


def _parameters(result: Mapping[str, Any]) -> dict[str, Any]:
    adapter = result.get("adapter") or {}
    own, total = adapter.get("trainable"), adapter.get("total")
    fusion = (result.get("fusion") or {}).get("parameters", 0)
    routes = max(len(adapter.get("routes", [])), 1)
    if own is None:
        return dict.fromkeys(("trainable", "one_route", "routes", "total", "share"))
    trainable = own + fusion
    share = trainable / total if total else None
    one = own // routes + fusion
    return {"trainable": trainable, "one_route": one, "routes": routes, "total": total, "share": share}


def _versions(line: Line) -> str:
    codes = {run.provenance.get("code") for run in line.runs}
    return "its folds were run by different versions of the code" if len(codes) > 1 else ""


def _labels(lines: Sequence[Line]) -> list[str]:
    """Method, size and fusion; what else sets lines apart where these do not."""
    several = len({line.first.settings.get("model.name") for line in lines}) > 1
    base = [_name(line, several) for line in lines]
    labels = []
    for line, name in zip(lines, base, strict=True):
        alike = [other for other, theirs in zip(lines, base, strict=True) if theirs == name]
        labels.append(", ".join([name, *_apart(line, alike)]))
    # what is left are runs of one configuration, such as one run again with other code: their hashes differ
    hashed = [f"{name} ({line.names[0][-8:]})" for line, name in zip(lines, labels, strict=True)]
    return [long if labels.count(name) > 1 else name for long, name in zip(hashed, labels, strict=True)]


def _name(line: Line, with_model: bool) -> str:
    run = line.first
    name, value = run.size
    size = (
        ""
        if value is None
        else {"rank": f" {value}", "reduction": f" /{value}"}.get(name, f" {name} {value}")
    )
    fused = "" if line.fusion == "none" else f" + {line.fusion}"
    model = f"{run.settings.get('model.name')} " if with_model else ""
    if run.stage == "zero_shot":
        return f"{model}zero-shot"
    return f"{model}{run.method}{size}{fused}{' supervised' if run.stage == 'supervised' else ''}"


def _apart(line: Line, alike: Sequence[Line]) -> Iterator[str]:
    """What not all of these lines share: modalities trained on as `on ct+pet`, settings as `lr=0.001`."""
    own, names = line.first.asked(), differing(alike)
    trained = line.first.trained_on
    if trained and any(other.first.trained_on != trained for other in alike):
        # a weight of 0 and none at all are the same, so names of weights would say too much
        names = [name for name in names if not name.startswith("data.train_modalities")]
        yield f"on {JOINT.join(modality for modality in MODALITIES if modality in trained)}"
    yield from (f"{name.partition('.')[2] or name}={_shown(own.get(name))}" for name in names)


def differing(lines: Sequence[Line]) -> list[str]:
    """Config paths of what not all lines were asked alike."""
    asked = [line.first.asked() for line in lines]
    names = dict.fromkeys(name for settings in asked for name in settings)
    return [name for name in names if any(s.get(name) != asked[0].get(name) for s in asked)]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)
