"""Numeric precision of inference."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch

from umdseg.errors import unknown

Precision = Literal["auto", "fp32", "bf16"]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context a network runs in.

    `auto` is bfloat16 where the hardware multiplies it natively (AVX512-BF16, AMX, recent GPUs), else
    float32.

    Raises:
        UserError: not one of auto, fp32, bf16.
    """
    if precision not in get_args(Precision):
        raise unknown("precision", precision, get_args(Precision))
    if precision == "fp32" or (precision == "auto" and not has_bf16(device)):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    probes = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(probe is not None and probe() for probe in probes)
