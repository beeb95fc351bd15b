"""What evaluation computes; the schema of the config section `evaluation`."""

from __future__ import annotations

from dataclasses import dataclass, field

from umdseg.errors import UserError, unknown
from umdseg.metrics import METRICS

BASELINES: tuple[str, ...] = ("intensity", "pet_threshold_30", "pet_threshold_41")


@dataclass
class EvaluationOptions:
    """Options of one evaluation.

    Attributes:
        metrics: any of dice, nsd, hd95, assd; volumes are always given.
        tolerance_mm: tolerance of the normalised surface Dice.
        bootstrap: resamples of the confidence intervals.
        overlap: share by which inference windows overlap.
        precision: `auto` (bf16 where the hardware has it), `fp32` or `bf16`.
        baselines: trivial competitors scored beside the model (intensity, pet_threshold_30,
            pet_threshold_41).
        save_predictions: keep the predictions of every subject, not only of the pictured ones.
        overlay_subjects: subjects pictured in the report.
    """

    metrics: list[str] = field(default_factory=lambda: ["dice"])
    tolerance_mm: float = 2.0
    bootstrap: int = 2000
    overlap: float = 0.25
    precision: str = "auto"
    baselines: list[str] = field(default_factory=list)
    save_predictions: bool = False
    overlay_subjects: int = 1

    def validate(self) -> None:
        """Refuse what no evaluation can do.

        Raises:
            UserError: unknown metric or baseline, overlap outside [0, 1), too few resamples.
        """
        for name in self.metrics:
            if name not in METRICS:
                raise unknown("metric", name, METRICS, where="evaluation.metrics")
        for name in self.baselines:
            if name not in BASELINES:
                raise unknown("baseline", name, BASELINES, where="evaluation.baselines")
        if not 0 <= self.overlap < 1:
            raise UserError(
                "windows cannot overlap by that much", where="evaluation.overlap", expected="0 <= overlap < 1"
            )
        if self.tolerance_mm <= 0:
            raise UserError(
                "the tolerance is not positive", where="evaluation.tolerance_mm", expected="millimetres > 0"
            )
        if self.bootstrap < 100:
            raise UserError(
                "too few bootstrap resamples", where="evaluation.bootstrap", expected="at least 100"
            )
