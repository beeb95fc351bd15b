"""One score per patient, configuration and input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from umdseg.evaluation.bootstrap import mean_interval
from umdseg.evaluation.paired import signed_rank
from umdseg.vocabulary import MODALITIES

# the largest part of its input that a patient has
THERE = "all there is"
# how the names of trained models start
TRAINED = ("LoRA", "U-Net")
# of LoRA, where a name says nothing else
STEPS = 300
Key = tuple[str, str]


@dataclass(frozen=True)
class Configuration:
    """What was trained: `LoRA pet`, `LoRA ct+pet`, `U-Net ct+pet+mr, 400 steps`.

    Attributes:
        name: as tables call it.
        modalities: trained on, together where there are several.
    """

    name: str
    modalities: tuple[str, ...]


def configuration(run: Path) -> Configuration:
    """What a run trained, from its config.yaml."""
    config: Any = OmegaConf.load(run / "config.yaml")
    weights = config.data.train_modalities
    modalities = tuple(m for m in MODALITIES if weights.get(m, 0) > 0)
    inputs = "+".join(modalities)
    if config.model.name == "unet":
        return Configuration(f"U-Net {inputs}, {config.fit.steps} steps", modalities)
    # without dropout it is another model
    dropped = "" if config.fusion.name == "none" or config.fusion.dropout else ", nothing left out"
    longer = "" if config.fit.steps == STEPS else f", {config.fit.steps} steps"
    return Configuration(f"LoRA {inputs}{dropped}{longer}", modalities)


@dataclass
class Answers:
    """Dice of every patient under every configuration and input.

    Attributes:
        scores: (configuration, what it was given) -> Dice by patient.
    """

    scores: dict[Key, pd.Series] = field(default_factory=dict)

    def add(self, made: Configuration, cases: pd.DataFrame) -> None:
        """Add the rows of one run: of one modality those on it, of several every part of the input."""
        if len(made.modalities) == 1:
            (only,) = made.modalities
            self.put(made.name, only, _by_patient(cases[cases["modality"] == only]))
            return
        for given, rows in cases.groupby("subset"):
            self.put(made.name, str(given), _by_patient(rows))
        order = cases["subset"].str.count(r"\+")
        largest = cases[order == order.groupby(cases["subject"]).transform("max")]
        # of several equally large parts there is none that is all
        self.put(made.name, THERE, _by_patient(largest.drop_duplicates("subject", keep=False)))

    def put(self, name: str, given: str, scores: pd.Series) -> None:
        """Add scores by patient; a patient scored before (the same baseline in every run) keeps its score."""
        if scores.empty:
            return
        known = self.scores.get((name, given))
        joined = scores if known is None else pd.concat([known, scores])
        self.scores[name, given] = joined[~joined.index.duplicated()].sort_index()

    def names(self, start: str) -> list[str]:
        """Configurations whose name starts so, in order."""
        return list(dict.fromkeys(name for name, _ in self.scores if name.startswith(start)))

    def difference(self, first: Key, second: Key) -> dict[str, Any] | None:
        """First minus second on the patients both have; None where either was not run."""
        if first not in self.scores or second not in self.scores:
            return None
        pairs = pd.concat([self.scores[first], self.scores[second]], axis=1, join="inner", keys=["a", "b"])
        if pairs.empty:
            return None
        values = (pairs["a"] - pairs["b"]).to_numpy(dtype=float)
        return {
            **{
                "first": shown(first),
                "second": shown(second),
                "n": len(values),
                "value": float(values.mean()),
            },
            **{
                "ci": mean_interval(values).as_list(),
                "p": signed_rank(values),
            },
            **{"first_mean": float(pairs["a"].mean()), "second_mean": float(pairs["b"].mean())},
        }

    def summary(self) -> list[dict[str, Any]]:
        """Mean and interval of every configuration and input."""
        return [
            {
                **{"configuration": name, "given": given, "n": len(scores), "mean": float(scores.mean())},
                "ci": mean_interval(scores.to_numpy(dtype=float)).as_list(),
            }
            for (name, given), scores in sorted(self.scores.items(), key=lambda item: _place(item[0]))
        ]

    def table(self) -> pd.DataFrame:
        """Patients by configurations."""
        keys = sorted(self.scores, key=_place)
        columns = {shown(key): self.scores[key] for key in keys}
        return pd.concat(columns, axis=1).sort_index().rename_axis("subject")


def shown(key: Key) -> str:
    """A configuration and its input in one text."""
    name, given = key
    # a threshold and an ellipsoid have one input only
    own = not name.startswith(TRAINED) or given in name.split(",")[0].split()
    return name if own else f"{name} given {given}"


def interval(value: float, ci: Iterable[float] | None, sign: bool = False) -> str:
    """`0.51 [0.40, 0.60]`."""
    style = "+.2f" if sign else ".2f"
    told = format(value, style)
    return told if ci is None else f"{told} [{', '.join(format(end, style) for end in ci)}]"


def _by_patient(rows: pd.DataFrame) -> pd.Series:
    return rows.groupby("subject")["dice"].mean()


def _place(key: Key) -> tuple[Any, ...]:
    """Trained models first, small inputs first, the longer training last."""
    name, given = key
    kind = next((i for i, start in enumerate(TRAINED) if name.startswith(start)), len(TRAINED))
    steps = [int(word) for word in name.replace("%", "").split() if word.isdigit()]
    order = {m: i for i, m in enumerate(MODALITIES)}
    parts = [order.get(m, len(order)) for m in given.split("+")]
    return kind, name.count("+"), steps, name, given == THERE, len(parts), parts
