"""Options of fitting, shared by every task."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class FitOptions:
    """How a model is fitted.

    Attributes:
        steps: optimizer steps.
        lr: peak learning rate (AdamW); None = the adapter's own default.
        weight_decay: AdamW weight decay.
        warmup: share of the steps over which the learning rate rises linearly; cosine decay after it.
        grad_clip: gradients are scaled down to this global norm; 0 = not at all.
        ce_weight: weight of the cross-entropy beside Dice.
        point_share: share of steps prompted by points; the rest is prompted by class.
        structures_per_step: structures asked for in one step, drawn among those in the patch; None = all
            by class, 3 by clicks.
        positive_clicks: most clicks inside the structure in one training prompt.
        negative_clicks: most clicks outside it.
        copy_parts: before fitting, module -> the module of the same shapes it takes its weights from.
        export_weights: after fitting, write the network's weights (fp16 safetensors) here; None = do not.
    """

    steps: int = 200
    lr: float | None = None
    weight_decay: float = 1e-5
    warmup: float = 0.05
    grad_clip: float = 1.0
    ce_weight: float = 2.0
    point_share: float = 0.3
    structures_per_step: int | None = None
    positive_clicks: int = 3
    negative_clicks: int = 2
    copy_parts: dict[str, str] = field(default_factory=dict)
    export_weights: str | None = None
