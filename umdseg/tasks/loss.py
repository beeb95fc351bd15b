"""The loss of promptable segmentation: Dice and cross-entropy per prompt."""

from __future__ import annotations

import torch
from torch.nn import functional


def dice_ce(
    logits: torch.Tensor,
    target: torch.Tensor,
    ce_weight: float = 1.0,
    annotated: torch.Tensor | None = None,
) -> torch.Tensor:
    """Soft Dice (squared denominator) plus binary cross-entropy, each prompt on its own.

    Dice is pooled over the batch, so that a structure cut out of one patch still has a denominator. A
    prompt whose structure is nowhere in the batch has no Dice to gain; the cross-entropy alone
    pushes it down (counted in, absent structures drive rare ones to zero before they are learned).
    Source: Milletari et al., V-Net, arXiv 1606.04797, eq. 3, and VISTA3D's DiceCE (arXiv 2406.05285).

    Args:
        logits: (B, K, X, Y, Z), one channel per prompt.
        target: same shape, 0 or 1.
        ce_weight: weight of the cross-entropy.
        annotated: (B, K) bool, where the target is known; the rest counts nowhere. None = everywhere.

    Returns:
        Scalar.
    """
    # sums over 200,000 voxels need more than bfloat16
    logits, target = logits.float(), target.float()
    axes = (0, 2, 3, 4)
    probability = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if annotated is not None:
        known = annotated[..., None, None, None].to(logits)
        probability, target, entropy = probability * known, target * known, entropy * known
        # the mean over what is known
        entropy = entropy.mean() / known.mean().clamp(min=1e-9)
    overlap = (probability * target).sum(dim=axes)
    size = probability.square().sum(dim=axes) + target.square().sum(dim=axes)
    dice = 1 - (2 * overlap + 1) / (size + 1)
    present = target.flatten(2).any(dim=2).any(dim=0)
    entropy = entropy.mean()
    return (dice * present).sum() / present.sum().clamp(min=1) + ce_weight * entropy
