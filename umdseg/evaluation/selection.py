"""Which rows of a case table are meant: `pet`, `ct+pet`, `ct+pet/ct` (given CT alone), `pet@zero_shot`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from umdseg.errors import UserError, unknown
from umdseg.evaluation.cases import NO_LABEL, on_grid
from umdseg.evaluation.inputs import JOINT, as_single, column_of, columns_of, in_order
from umdseg.evaluation.options import BASELINES
from umdseg.metrics.scores import LOWER_IS_BETTER, METRICS
from umdseg.vocabulary import STAGES

if TYPE_CHECKING:
    import pandas as pd

# what a table is about: a trained model where there is one
_LAST = ("supervised", "adapted", "zero_shot")
# who is the reference where the wanted one is missing; what rows say that were scored on another's label
_REFERENCES = ("ct", "mr", "pet")
_OTHER_LABEL = "label_from_"


@dataclass(frozen=True)
class Selection:
    """Rows of one model, input and stage.

    Attributes:
        modality: a single scan (`pet`: also what a model of several scans made of that scan alone), or scans
            given together (`ct+pet`).
        subset: which of several scans were given; empty means all of them.
        stage: zero_shot, adapted or supervised; empty means the last there is.
    """

    modality: str
    subset: str = ""
    stage: str = ""

    @classmethod
    def parse(cls, text: str) -> Selection:
        """`MODALITY[/SUBSET][@STAGE]`.

        Raises:
            UserError: no modality, or an unknown stage.
        """
        place, at, stage = text.partition("@")
        modality, _, subset = place.partition("/")
        if not modality:
            raise UserError(f"'{text}' names no modality", expected="pet, ct+pet, ct+pet/ct or pet@zero_shot")
        if at and stage not in STAGES:
            raise unknown("stage", stage, STAGES, where=text)
        return cls(modality, "" if subset == modality else subset, stage)

    def __str__(self) -> str:
        subset = f"/{self.subset}" if self.subset else ""
        return f"{self.modality}{subset}{f'@{self.stage}' if self.stage else ''}"

    @property
    def column(self) -> str:
        """As reports name it: `pet`, `ct+pet`, `ct+pet given ct`."""
        return column_of(self.modality, self.subset)

    def at(self, stage: str) -> Selection:
        """The same input at another stage."""
        return replace(self, stage=stage)

    def rows(self, cases: pd.DataFrame) -> pd.DataFrame:
        """These rows of a case table, on any score grid; rows of trivial baselines are left out.

        Raises:
            UserError: the table has nothing of the kind, or of several models.
        """
        rows = self._of_all_stages(cases)
        stage = self.stage or last_stage(rows)
        rows = rows[rows["stage"] == stage]
        if rows.empty:
            raise UserError(
                f"no row of {self.column} is of stage {stage}", expected=f"one of {', '.join(stages(cases))}"
            )
        for name in ("model", "adapter", "fusion"):
            if name in rows and rows[name].nunique() > 1:
                several = ", ".join(sorted(map(str, rows[name].unique())))
                raise UserError(f"{self.column}: several values of '{name}'", where=several, expected="one")
        return rows

    def stages(self, cases: pd.DataFrame) -> list[str]:
        """The stages that the input has rows of, in the order of an experiment.

        Raises:
            UserError: the table has nothing of the input.
        """
        return stages(self._of_all_stages(cases))

    def _of_all_stages(self, cases: pd.DataFrame) -> pd.DataFrame:
        own = cases[~cases["model"].isin(BASELINES)] if "model" in cases else cases
        if JOINT in self.modality:
            rows = own[columns_of(own) == self.column]
        else:
            single = as_single(own)
            rows = single[single["modality"] == self.modality]
        if rows.empty or (self.subset and JOINT not in self.modality):
            raise unknown("scans", self.column, columns(own), where="the case table")
        return rows


def columns(cases: pd.DataFrame) -> list[str]:
    """Single scans, then scans given together (two and more), as reports name them."""
    alone = list(as_single(cases)["modality"].unique())
    together = cases[cases["modality"].str.contains(JOINT, regex=False)]
    several = [c for c in columns_of(together).unique() if JOINT in c.rpartition(" ")[2]]
    return in_order(map(str, [*alone, *several]))


def holds(cases: pd.DataFrame, column: str) -> bool:
    """Whether the table has rows of an input, also of a part of one (`ct+pet given ct`)."""
    return column in columns(cases) or bool((columns_of(cases) == column).any())


def stages(cases: pd.DataFrame) -> list[str]:
    """The stages of a table, in the order of an experiment."""
    return [stage for stage in STAGES if (cases["stage"] == stage).any()]


def last_stage(cases: pd.DataFrame) -> str:
    """Supervised, else adapted, else zero_shot."""
    return next((stage for stage in _LAST if (cases["stage"] == stage).any()), _LAST[-1])


def scored_on(rows: pd.DataFrame, reference: str = "ct") -> list[str]:
    """Whose labels rows were scored against.

    Args:
        rows: of one input, as `Selection.rows` gives them.
        reference: the run's data.reference, which decides for scans given together.
    """
    found = []
    for modality, subset, condition in rows[["modality", "subset", "condition"]].itertuples(index=False):
        given = str(subset or modality).split(JOINT)
        first = sorted(given, key=[reference, *_REFERENCES].index)[0]
        _, other, named = str(condition).partition(_OTHER_LABEL)
        found.append(named.partition(";")[0] if other else first)
    return in_order(found)


def measured(cases: pd.DataFrame) -> list[str]:
    """The metrics that a table has values of."""
    return [metric for metric in METRICS if metric in cases and cases[metric].notna().any()]


def scores(
    cases: pd.DataFrame,
    selection: Selection,
    metric: str = "dice",
    prompt: str | None = None,
    grid: str = "label",
) -> pd.DataFrame:
    """What was scored of a selection.

    Args:
        cases: case table.
        selection: which rows.
        metric: column of scores.
        prompt: kind of prompt; None = the only one there is.
        grid: label or common.

    Returns:
        Index (subject, structure), columns score and volume (ml of the reference); of rows with status `ok`
        and a score. `attrs` holds stage, prompt and, for a table without rows, why there is none.

    Raises:
        UserError: no such rows, several models or prompts, or the metric was not computed.
    """
    chosen = selection.rows(cases)
    stage = str(chosen["stage"].iloc[0])
    rows = on_grid(chosen, grid)
    if rows.empty:
        what = f"no {stage} row of {selection.column} is on the {grid} grid"
        raise UserError(what, expected="evaluation.score_grids=[label,common] in the run")
    prompts = [str(kind) for kind in rows["prompt"].unique()]
    if prompt is None and len(prompts) > 1:
        what = f"{selection.column} was asked for by {' and '.join(prompts)}"
        raise UserError(what, where="prompt", expected="one of them")
    wanted = prompt or prompts[0]
    if wanted not in prompts:
        raise unknown(f"prompt of {selection.column}", wanted, prompts, where="prompt")
    rows = rows[rows["prompt"] == wanted]
    ok = rows[rows["status"] == "ok"]
    if len(ok) and metric not in (known := measured(cases)):
        also = ", or every prediction is empty" if metric in LOWER_IS_BETTER else ""
        names = ",".join([*known, metric])
        expected = f"{' or '.join([*known, ''])}evaluation.metrics=[{names}] in the run"
        raise UserError(f"'{metric}' was not computed{also}", where="the case table", expected=expected)
    found = ok.rename(columns={metric: "score", "volume_ref_ml": "volume"})
    found = found.reindex(columns=["subject", "structure", "score", "volume"]).dropna(subset="score")
    found = found.groupby(["subject", "structure"]).mean()
    found.attrs = {"stage": stage, "prompt": wanted, "why": _why(rows)}
    return found


def _why(rows: pd.DataFrame) -> str:
    """Statuses of rows without a score; a scan without a label is not one whose label is empty."""
    bare = rows[rows["status"] != "ok"]
    condition = bare["condition"] if "condition" in bare else bare["status"]
    told = bare["status"].where(condition != NO_LABEL, NO_LABEL)
    return "/".join(sorted(map(str, told.unique()))) or "no score"
