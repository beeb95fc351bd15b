"""Weights to ship: half precision on disk, with the record of how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from umdseg.backbones.base import Backbone
from umdseg.files import atomic, sha256_file, write_json


def export_weights(backbone: Backbone, path: Path, record: Mapping[str, Any]) -> str:
    """Write a network's tensors as safetensors and the record beside them as JSON.

    Floating-point tensors are stored as float16 (the loader casts them back); a value that float16
    cannot hold would be a broken model, so it is refused.

    Args:
        backbone: whose `net` is written.
        path: file name ending in .safetensors; the record gets the same stem and .json.
        record: plain data about the training.

    Returns:
        SHA-256 of the file.

    Raises:
        ValueError: a tensor holds values that float16 cannot.
    """
    from safetensors.torch import save_file

    tensors = {name: _half(name, value) for name, value in backbone.net.state_dict().items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"model": backbone.card.name})
    digest = sha256_file(path)
    parameters = sum(value.numel() for value in backbone.net.parameters())
    facts = {"model": backbone.card.name, "file": path.name, "sha256": digest, "parameters": parameters}
    write_json(path.with_suffix(".json"), {**facts, "bytes": path.stat().st_size, **record})
    return digest


def _half(name: str, value: torch.Tensor) -> torch.Tensor:
    value = value.detach().cpu()
    if not value.is_floating_point():
        return value.contiguous().clone()
    half = value.to(torch.float16)
    if not torch.isfinite(half).all():
        raise ValueError(f"tensor '{name}' holds values beyond float16: up to {value.abs().max().item():g}")
    return half.contiguous().clone()
