"""AdamW with a linear warm-up and a cosine decay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from umdseg.tasks.options import FitOptions


def optimizer_of(groups: Sequence[dict[str, Any]], lr: float, options: FitOptions) -> dict[str, Any]:
    """Optimizer and schedule, as Lightning takes them.

    Args:
        groups: what is fitted, as PyTorch's parameter groups (`params`, and `lr` where it is another).
        lr: peak learning rate.
        options: steps, warm-up, weight decay.
    """
    optimizer = torch.optim.AdamW(list(groups), lr=lr, weight_decay=options.weight_decay)
    warm = max(1, round(options.warmup * options.steps))

    def factor(step: int) -> float:
        left = max(0.0, (step - warm) / max(1, options.steps - warm))
        return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(1.0, left))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
