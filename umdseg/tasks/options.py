"""Options of fitting, shared by every task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from umdseg.errors import UserError

Loss = Literal["dice_ce", "dice_focal", "tversky"]


@dataclass
class FitOptions:
    """How a model is fitted.

    Attributes:
        steps: optimizer steps.
        lr: peak learning rate (AdamW); None = the adapter's own default, or the fusion's
            where there is no adapter.
        weight_decay: AdamW weight decay.
        warmup: share of the steps over which the learning rate rises linearly; cosine decay after it.
        grad_clip: gradients are scaled down to this global norm; 0 = not at all.
        loss: dice_ce, dice_focal (focal in place of plain cross-entropy) or tversky (Tversky overlap in place
            of Dice). The model's output decides the form: of `sigmoid` models every prompt stands alone; of
            `softmax` models the structures compete.
        ce_weight: weight of the cross-entropy beside the overlap.
        focal_gamma: with loss=dice_focal, how much voxels that are right already count less.
        tversky_beta: with loss=tversky, weight of missed voxels; that of false ones is 1 - beta.
        point_share: share of steps prompted by points. What points and boxes leave is prompted by class.
            Kinds the model does not take give their share to the others.
        box_share: share of steps prompted by boxes.
        box_margin_mm: how far the boxes of training reach beyond the structure.
        box_jitter_mm: by how much each face of them is moved at random.
        structures_per_step: structures asked for in one step, drawn among those in the patch; None = all
            by class, 3 by clicks and boxes.
        balance_prompts: draw what is clicked on or boxed inversely to how often it has been so far.
        positive_clicks: most clicks inside the structure in one training prompt.
        negative_clicks: most clicks outside it.
        ema: decay of a running average of the trained tensors that is validated and kept in their place
            (0.99, say); None = none.
        validate_every: steps between scores of the validation subjects, at most `steps`; 0 = none.
        validation_patches: places looked at then, the same every time, in every modality of their subject.
        early_stop: stop after so many scores in a row without a better one, and keep the best tensors;
            None = never.
        copy_parts: before fitting, module -> the module of the same shapes it takes its weights from.
        export_weights: after fitting, write the network's weights here (fp16, NAME.safetensors); None = no.
    """

    steps: int = 200
    lr: float | None = None
    weight_decay: float = 1e-5
    warmup: float = 0.05
    grad_clip: float = 1.0
    loss: Loss = "dice_ce"
    ce_weight: float = 2.0
    focal_gamma: float = 2.0
    tversky_beta: float = 0.7
    point_share: float = 0.3
    box_share: float = 0.0
    box_margin_mm: float = 0.0
    box_jitter_mm: float = 6.0
    structures_per_step: int | None = None
    balance_prompts: bool = False
    positive_clicks: int = 3
    negative_clicks: int = 2
    ema: float | None = None
    validate_every: int = 0
    validation_patches: int = 32
    early_stop: int | None = None
    copy_parts: dict[str, str] = field(default_factory=dict)
    export_weights: str | None = None

    def validate(self) -> None:
        """Refuse what excludes each other.

        Raises:
            UserError: naming the config path.
        """
        if self.point_share + self.box_share > 1:
            raise UserError(
                f"{self.point_share} by points and {self.box_share} by boxes are more than all steps",
                where="fit.box_share",
                expected="fit.point_share + fit.box_share of at most 1",
            )
        if self.early_stop is not None and not self.validate_every:
            raise UserError(
                "nothing is validated, so nothing can stop early",
                where="fit.early_stop",
                expected="fit.validate_every=STEPS as well, or null",
            )
        if 0 < self.steps < self.validate_every:
            raise UserError(
                f"every {self.validate_every} steps, of {self.steps}: nothing would ever be validated",
                where="fit.validate_every",
                expected=f"at most fit.steps ({self.steps}), or 0",
            )
