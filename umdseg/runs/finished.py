"""A finished run, read back from its folder: config.yaml, provenance.json, gap.json, cases.parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umdseg.errors import UserError
from umdseg.evaluation.cases import read_cases
from umdseg.evaluation.options import BASELINES
from umdseg.evaluation.selection import last_stage
from umdseg.evaluation.whose import whose
from umdseg.files import sha256_value
from umdseg.runs.identity import BESIDE_THE_POINT, FOR_FITTING

if TYPE_CHECKING:
    import pandas as pd

_FOLD = "data.fold"
# the fingerprint says whose files these are only within one fold, so folds of one study share these, too
_WHERE = ("data.root", "data.manifest", "data.structures_file", "data.labels", "data.labels_dir")
# sizes that adapters are chosen by, in the order they count
_SIZES = ("rank", "width", "reduction")


@dataclass(frozen=True)
class FinishedRun:
    """What comparing needs of a run.

    Attributes:
        path: its folder.
        settings: config path -> value.
        provenance: content of provenance.json.
        result: content of gap.json.
        cases: its case table, the rows of its own model.
    """

    path: Path
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    result: Mapping[str, Any]
    cases: pd.DataFrame

    @classmethod
    def read(cls, path: Path) -> FinishedRun:
        """Read a run folder.

        Raises:
            UserError: no run there, one that did not end, or a damaged file.
        """
        import yaml

        path = Path(path).expanduser()
        provenance = _json(path, "provenance.json")
        if (status := provenance.get("status")) != "complete":
            raise UserError(f"the run is not finished: {status}", where=path, expected="status complete")
        try:
            settings = yaml.safe_load(_text(path, "config.yaml"))
        except yaml.YAMLError as error:
            raise _damaged(path / "config.yaml") from error
        cases = read_cases(path / "cases.parquet")
        cases = _own(cases[~cases["model"].isin(BASELINES)])
        if not isinstance(settings, dict) or cases.empty:
            raise _damaged(path / ("cases.parquet" if isinstance(settings, dict) else "config.yaml"))
        return cls(path, dict(_flat(settings)), provenance, _json(path, "gap.json"), cases)

    @property
    def key(self) -> str:
        """What runs share that differ in nothing but the fold they test."""
        weights = self.provenance.get("weights", {}).get("state_sha256")
        data = self.provenance.get("data", {}).get("name")
        return sha256_value({"settings": self.asked(), "weights": weights, "data": data})

    def asked(self) -> dict[str, Any]:
        """The settings that change the result, config path -> value, without the fold."""
        drop = [name for name in (*BESIDE_THE_POINT, "model.weights", _FOLD) if name not in _WHERE]
        evaluated = self.settings.get("task") == "evaluate"
        below = ("logger.", *(FOR_FITTING if evaluated else ()), *(f"{name}." for name in drop))
        return {k: v for k, v in self.settings.items() if k not in drop and not k.startswith(below)}

    @property
    def fold(self) -> int | None:
        """The fold tested, None where the subjects were not dealt into folds."""
        dealt = self.cases["fold"].dropna().unique()
        return int(dealt[0]) if len(dealt) else None

    @property
    def stage(self) -> str:
        """Of the model that the run is about."""
        return last_stage(self.cases)

    @property
    def method(self) -> str:
        """Registered name of the adapter."""
        return str(self.settings.get("adapter.name", "none"))

    @property
    def size(self) -> tuple[str, Any]:
        """(name, value) of the option an adapter is sized by; ("", None) where its method has none."""
        given = {name: self.settings.get(f"adapter.{name}") for name in _SIZES}
        return next(((name, value) for name, value in given.items() if value is not None), ("", None))

    @property
    def trained_on(self) -> frozenset[str] | None:
        """Modalities with a sampling weight above 0; None of an evaluation, which does not say."""
        prefix = "data.train_modalities."
        weights = {k.removeprefix(prefix): v for k, v in self.settings.items() if k.startswith(prefix)}
        if self.settings.get("task") == "evaluate":
            return None
        return frozenset(modality for modality, weight in weights.items() if weight and weight > 0)

    def patients(self) -> dict[str, str]:
        """Subject -> patient, of those that are not patients of their own."""
        return whose(self.cases)


def _own(cases: pd.DataFrame) -> pd.DataFrame:
    """Without the supervised networks of other runs that stand beside a model's own rows."""
    supervised = cases["stage"] == "supervised"
    return cases if supervised.all() else cases[~supervised]


def _flat(node: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in node.items():
        where = f"{path}.{name}" if path else str(name)
        found += _flat(value, where) if isinstance(value, dict) and value else [(where, value)]
    return found


def _text(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8")
    except OSError as error:
        expected = "a run folder: config.yaml, provenance.json, gap.json, cases.parquet"
        raise UserError(f"no {name} there", where=folder, expected=expected) from error


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(_text(folder, name))
    except json.JSONDecodeError as error:
        raise _damaged(folder / name) from error
    if not isinstance(value, dict):
        raise _damaged(folder / name)
    return value


def _damaged(path: Path) -> UserError:
    return UserError("the run's file cannot be used", where=path, expected="the file as the run wrote it")
