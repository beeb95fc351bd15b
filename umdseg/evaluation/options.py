"""What evaluation computes; the schema of the config section `evaluation`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from umdseg.data.options import refuse_repeats
from umdseg.errors import UserError, unknown
from umdseg.evaluation.cases import SCORE_GRIDS
from umdseg.metrics import METRICS
from umdseg.vocabulary import MODALITIES

OWN = "own"
LABELS = (OWN, *MODALITIES)
BASELINES: tuple[str, ...] = ("intensity", "pet_threshold_30", "pet_threshold_41")


@dataclass
class EvaluationOptions:
    """Options of one evaluation.

    Attributes:
        metrics: any of dice, nsd, hd95, assd; volumes are always given.
        tolerance_mm: tolerance of the normalised surface Dice.
        bootstrap: resamples of the confidence intervals.
        overlap: share by which inference windows overlap; None = as the model's card says.
        precision: `auto` (bf16 where the hardware has it), `fp32` or `bf16`.
        box_margin_mm: with prompt=box and lasso, how far these reach beyond the reference on all sides.
        box_jitter_mm: with prompt=box, by how much each face of a box is moved at random (from the seed);
            with prompt=lasso, by how much the line wanders at most.
        baselines: trivial competitors scored beside the model (intensity, pet_threshold_30,
            pet_threshold_41).
        save_predictions: keep the predictions of every subject, not only of the pictured ones.
        overlay_subjects: subjects pictured in the report.
        old_structures: after training, score the dataset's structures that the model knows and that
            data.structures leaves out, before and after, too: what was forgotten of them.
        supervised: run folders of networks trained from scratch (model=unet adapter=full), one for all
            modalities or one for each: their rows join the case table, for the excess gap.
        score_grids: `label` scores on each label's grid; `common` beside it on the subject's reference grid
            within the field of view that all its scored scans share, so that a tolerance means the same in
            all.
        label: `own` scores each scan against its own label; ct, pet or mr everything of a subject against
            that scan's, on its grid, so that different inputs answer for the same voxels (where a subject has
            no such label, its own).
    """

    metrics: list[str] = field(default_factory=lambda: ["dice"])
    tolerance_mm: float = 2.0
    bootstrap: int = 2000
    overlap: float | None = None
    precision: str = "auto"
    box_margin_mm: float = 0.0
    box_jitter_mm: float = 0.0
    baselines: list[str] = field(default_factory=list)
    save_predictions: bool = False
    overlay_subjects: int = 1
    old_structures: bool = True
    supervised: list[str] = field(default_factory=list)
    score_grids: list[str] = field(default_factory=lambda: list(SCORE_GRIDS))
    label: str = OWN

    def validate(self) -> None:
        """Refuse what no evaluation can do.

        Raises:
            UserError: no metrics, unknown or repeated ones, an unknown or repeated baseline, an unknown
                precision, a number outside its range.
        """
        from umdseg.inference.opening import check_overlap
        from umdseg.inference.precision import Precision

        self._check_names()
        self._check_targets()
        self._check_supervised()
        if self.precision not in get_args(Precision):
            raise unknown("precision", self.precision, get_args(Precision), where="evaluation.precision")
        try:
            check_overlap(self.overlap or 0.0)
        except UserError as error:
            raise UserError(error.what, where="evaluation.overlap", expected=error.expected) from error
        for name in ("box_margin_mm", "box_jitter_mm"):
            if not getattr(self, name) >= 0:
                raise UserError(
                    f"{getattr(self, name)} mm", where=f"evaluation.{name}", expected="millimetres, 0 or more"
                )
        if self.overlay_subjects < 0:
            raise UserError(
                f"{self.overlay_subjects} subjects", where="evaluation.overlay_subjects", expected="0 or more"
            )
        if not self.tolerance_mm > 0:
            raise UserError(
                "the tolerance is not positive", where="evaluation.tolerance_mm", expected="millimetres > 0"
            )
        if self.bootstrap < 100:
            raise UserError(
                "too few bootstrap resamples", where="evaluation.bootstrap", expected="at least 100"
            )

    def _check_names(self) -> None:
        if not self.metrics:
            raise UserError("no metric is named", where="evaluation.metrics", expected=", ".join(METRICS))
        refuse_repeats("evaluation.metrics", self.metrics)
        for name in self.metrics:
            if name not in METRICS:
                raise unknown("metric", name, METRICS, where="evaluation.metrics")
        if self.baselines:
            refuse_repeats("evaluation.baselines", self.baselines)
        for name in self.baselines:
            if name not in BASELINES:
                raise unknown("baseline", name, BASELINES, where="evaluation.baselines")

    def _check_supervised(self) -> None:
        where = "evaluation.supervised"
        if self.supervised:
            refuse_repeats(where, self.supervised)
        for run in self.supervised:
            if not (Path(run).expanduser() / "cases.parquet").is_file():
                raise UserError(
                    f"no run there: {run}", where=where, expected="a run folder with cases.parquet"
                )

    def _check_targets(self) -> None:
        if self.label not in LABELS:
            raise unknown("label", self.label, LABELS, where="evaluation.label")
        where = "evaluation.score_grids"
        refuse_repeats(where, self.score_grids)
        for name in self.score_grids:
            if name not in SCORE_GRIDS:
                raise unknown("score grid", name, SCORE_GRIDS, where=where)
        if "label" not in self.score_grids:
            expected = "label among them: gap.json and the figures rest on it"
            raise UserError("label is missing", where=where, expected=expected)
