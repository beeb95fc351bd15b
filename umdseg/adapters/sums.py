"""Weighted sums of saved adapters, tensor by tensor.

What is summed is what the adapters do to the base: the result's weights are
base + sum_i w_i (adapted_i - base) (task arithmetic, Ilharco et al., arXiv 2212.04089; with weights that add
up to 1 an average, Wortsman et al., arXiv 2203.05482).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

State = Mapping[str, torch.Tensor]
Sum = Callable[[Sequence[State], Sequence[float], Sequence[float]], dict[str, torch.Tensor]]


def stored(
    states: Sequence[State], weights: Sequence[float], scales: Sequence[float]
) -> dict[str, torch.Tensor]:
    """The weighted sum of every stored tensor (what is stored is what is added to the base)."""
    del scales
    return {key: weighted([state[key] for state in states], weights) for key in states[0]}


def factors_of_one(
    states: Sequence[State], weights: Sequence[float], scales: Sequence[float]
) -> dict[str, torch.Tensor]:
    """Of factors l on the base's weights, 1 + sum_i w_i (l_i - 1); rows of learned classes are summed."""
    rest = 1 - sum(weights)
    found = stored(states, weights, scales)
    return {key: value + rest if "ia3_l" in key else value for key, value in found.items()}


def low_rank(
    states: Sequence[State], weights: Sequence[float], scales: Sequence[float]
) -> dict[str, torch.Tensor]:
    """Of products of factors, the exact sum: factors side by side, ranks added up.

    The weighted mean of the factors would be another update: (A1 + A2)(B1 + B2) has cross terms. Here
    the summands' factors are concatenated along their rank, group by group for grouped convolutions, and
    weight and scale go into the last factor; the result's own scale is 1.

    Args:
        states: with the names of peft's LoRA (`lora_A`, `lora_B`) or of lora_conv (`down`, `factors.N`,
            `up`).
        weights: w_i.
        scales: alpha_i / rank_i.
    """
    found: dict[str, torch.Tensor] = {}
    for key in states[0]:
        last = _last_factor(key, states[0])
        parts = [state[key] for state in states]
        if last is None:
            found[key] = weighted(parts, weights)
        elif key == last:
            moved = [p.double() * (w * s) for p, w, s in zip(parts, weights, scales, strict=True)]
            # (out, rank / groups, ...): every group's columns are its own
            found[key] = torch.cat(moved, dim=1).to(parts[0].dtype)
        else:
            found[key] = _side_by_side(parts, [state[last] for state in states])
    return found


def weighted(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """sum_i w_i t_i, added up in float64."""
    total = sum(w * t.double() for w, t in zip(weights, tensors, strict=True))
    return torch.as_tensor(total).to(tensors[0].dtype)


def is_factor(key: str, state: State) -> bool:
    """Whether a tensor is a factor of a low-rank update."""
    return _last_factor(key, state) is not None


def is_shared(key: str, state: State) -> bool:
    """Whether a tensor of a low-rank adapter is none of its factors (rows of learned structures)."""
    return not is_factor(key, state)


def _last_factor(key: str, state: State) -> str | None:
    """The name of the factor that an update ends with, for any factor of it; None for other tensors."""
    for mark, end in (("lora_A.weight", "lora_B.weight"), ("down", "up")):
        if key.endswith((mark, end)):
            stem = key.removesuffix(mark) if key.endswith(mark) else key.removesuffix(end)
            return f"{stem}{end}" if f"{stem}{end}" in state and f"{stem}{mark}" in state else None
    stem, middle, _ = key.rpartition("factors.")
    return f"{stem}up" if middle and f"{stem}up" in state else None


def _side_by_side(parts: Sequence[torch.Tensor], last: Sequence[torch.Tensor]) -> torch.Tensor:
    """Factors (rank, ...) of several updates as one; rank runs group by group."""
    groups = [part.shape[0] // end.shape[1] for part, end in zip(parts, last, strict=True)]
    split = [
        part.reshape(g, part.shape[0] // g, *part.shape[1:]) for part, g in zip(parts, groups, strict=True)
    ]
    joined = torch.cat(split, dim=1)
    return joined.reshape(-1, *parts[0].shape[1:]).contiguous()
