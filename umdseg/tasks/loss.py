"""The loss of promptable segmentation: overlap and cross-entropy, prompts each on their own or competing."""

from __future__ import annotations

import torch
from torch.nn import functional

from umdseg.tasks.options import FitOptions

_VOXELS = (0, 2, 3, 4)


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
    return prompt_loss(logits, target, FitOptions(ce_weight=ce_weight), annotated)


def prompt_loss(
    logits: torch.Tensor, target: torch.Tensor, options: FitOptions, annotated: torch.Tensor | None = None
) -> torch.Tensor:
    """The loss that `options` name, each prompt on its own (`sigmoid` models, clicks, boxes).

    As `dice_ce`; with `dice_focal` the cross-entropy is focal (Lin et al., arXiv 1708.02002, without class
    weights), with `tversky` the overlap is Tversky's (Salehi et al., arXiv 1706.05721).

    Args:
        logits: (B, K, X, Y, Z), one channel per prompt.
        target: same shape, 0 or 1.
        options: which loss, and its weights.
        annotated: (B, K) bool, where the target is known; the rest counts nowhere. None = everywhere.

    Returns:
        Scalar.
    """
    # sums over 200,000 voxels need more than bfloat16
    logits, target = logits.float(), target.float()
    probability = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if options.loss == "dice_focal":
        entropy = _focal(entropy, options.focal_gamma)
    if annotated is not None:
        known = annotated[..., None, None, None].to(logits)
        probability, target, entropy = probability * known, target * known, entropy * known
        # the mean over what is known
        entropy = entropy / known.mean().clamp(min=1e-9)
    return _overlap(probability, target, options) + options.ce_weight * entropy.mean()


def competing_loss(
    logits: torch.Tensor, target: torch.Tensor, options: FitOptions, annotated: torch.Tensor | None = None
) -> torch.Tensor:
    """The loss that `options` name for classes that compete (`softmax` models).

    Overlap as in `prompt_loss`, of softmax probabilities and without the background; multi-class
    cross-entropy (focal with `dice_focal`). A class that a sample's label does not tell about counts as
    background there: the marginal loss of Shi et al. (arXiv 2007.03868).

    Args:
        logits: (B, 1 + K, X, Y, Z), background first (see `umdseg.tasks.competing`).
        target: (B, K, X, Y, Z), 0 or 1, at most one 1 per voxel.
        options: which loss, and its weights.
        annotated: (B, K) bool, where the target is known. None = everywhere.

    Returns:
        Scalar.
    """
    logits, target = logits.float(), target.float()
    if annotated is not None:
        logits, target = _marginal(logits, annotated), target * annotated[..., None, None, None].to(logits)
    chances = logits.log_softmax(dim=1)
    index = torch.where(target.any(dim=1), target.argmax(dim=1) + 1, 0)
    entropy = functional.nll_loss(chances, index, reduction="none")
    if options.loss == "dice_focal":
        entropy = _focal(entropy, options.focal_gamma)
    probability = chances[:, 1:].exp()
    return _overlap(probability, target, options) + options.ce_weight * entropy.mean()


def _focal(entropy: torch.Tensor, gamma: float) -> torch.Tensor:
    """Of a cross-entropy -log p: (1 - p)^gamma times it."""
    wrong = -torch.expm1(-entropy)
    # the power's slope at 0 is infinite for gamma below 1
    return wrong.clamp(min=1e-6) ** gamma * entropy


def _overlap(probability: torch.Tensor, target: torch.Tensor, options: FitOptions) -> torch.Tensor:
    """1 - overlap, the mean over the channels that the batch holds; pooled over the batch."""
    inside = (probability * target).sum(dim=_VOXELS)
    if options.loss == "tversky":
        missed = ((1 - probability) * target).sum(dim=_VOXELS)
        false = (probability * (1 - target)).sum(dim=_VOXELS)
        beta = options.tversky_beta
        lost = 1 - (inside + 1) / (inside + beta * missed + (1 - beta) * false + 1)
    else:
        size = probability.square().sum(dim=_VOXELS) + target.square().sum(dim=_VOXELS)
        lost = 1 - (2 * inside + 1) / (size + 1)
    present = target.flatten(2).any(dim=2).any(dim=0)
    return (lost * present).sum() / present.sum().clamp(min=1)


def _marginal(logits: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    """Logits whose unannotated classes have been added to the background, sample by sample."""
    known = torch.cat([torch.ones_like(annotated[:, :1]), annotated], dim=1)[..., None, None, None]
    # finite, so that log-softmax has no 0 * inf in its gradient
    never = torch.full_like(logits, -1e4)
    hidden = torch.where(known, never, logits)
    background = torch.logsumexp(torch.cat([logits[:, :1], hidden[:, 1:]], dim=1), dim=1, keepdim=True)
    return torch.cat([background, torch.where(known, logits, never)[:, 1:]], dim=1)
