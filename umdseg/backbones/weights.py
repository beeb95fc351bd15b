"""Weights: strict, prefix-aware reading of the published layouts, with understandable errors."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from umdseg.backbones.base import Backbone
from umdseg.backbones.download import fetch
from umdseg.backbones.loaded import Loaded
from umdseg.backbones.options import ModelOptions
from umdseg.errors import UserError
from umdseg.files import sha256_file

State = dict[str, torch.Tensor]
B = TypeVar("B", bound=Backbone)

# torch trainers; MONAI bundles; SAM-Med3D; nnU-Net; SuPreM
_WRAPPERS = ("state_dict", "model", "network", "model_state_dict", "network_weights", "net")
_PREFIXES = ("module.", "network.", "model.")


def load_weights(backbone: B, options: ModelOptions) -> B:
    """Load what `options.weights` says into a backbone, and note the file's hash and what it filled.

    Raises:
        UserError: weights missing, not readable, of another network, or terms not accepted.
    """
    if options.weights == "random":
        backbone.state_sha256 = state_hash(backbone.net.state_dict())
        return backbone
    card = backbone.card
    path = (
        Path(options.weights).expanduser() if options.weights else fetch(card.weights, options.accept_licence)
    )
    digest = sha256_file(path) if path.is_file() else None
    expected = card.weights.sha256
    if options.weights is None and expected is not None and digest != expected:
        raise UserError(
            "the weights file is not the one the card names", where=path, expected=f"sha256 {expected}"
        )
    own = backbone.net.state_dict()
    published, layout = _read(path, own)
    state = backbone.convert(published)
    # what a conversion completes is the network's own memory; the table of learned classes belongs to no file
    kept = [key for key in own if key in state and _same_memory(own[key], state[key])]
    if published.keys() - state.keys():
        layout.append("names converted")
    fresh = tuple(key for key in kept if key != f"{card.class_rows}.weight")
    load_strict(backbone.net, state, where=path)
    backbone.random_weights = False
    backbone.loaded = Loaded(
        file=path.name,
        total=len(own) - len(kept) + len(fresh),
        fresh=fresh,
        layout=", ".join(layout),
        verified=expected is not None and digest == expected,
    )
    backbone.weights_sha256 = digest
    backbone.state_sha256 = state_hash(backbone.net.state_dict())
    return backbone


def read_state(path: Path | str, own: Collection[str] = ()) -> State:
    """Read a state dict from any published layout.

    Plain, or wrapped in one of `_WRAPPERS`; with or without one of the prefixes `module.`, `network.`,
    `model.` (stripped only when every key has it, and no further than the network's own names);
    safetensors, or pickles read with `weights_only=True`. Names stay the published ones
    (`Backbone.convert` renames them).

    Args:
        path: the file.
        own: names of the network's own tensors.

    Raises:
        UserError: missing, truncated, carrying pickled code, or holding no tensors.
    """
    return _read(Path(path), own)[0]


def _read(path: Path, own: Collection[str]) -> tuple[State, list[str]]:
    """As `read_state`, and the wrappers and prefixes that were taken off."""
    if not path.is_file():
        raise UserError(
            "the weights file does not exist", where=path, expected="a .safetensors, .pt or .pth file"
        )
    raw = _read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    state, wrappers = _unwrap(raw, path)
    state, prefixes = _strip(state, own)
    return state, [f"under '{name}'" for name in wrappers] + [f"prefix '{name}'" for name in prefixes]


def _same_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.numel() > 0 and one.data_ptr() == other.data_ptr()


def load_strict(net: nn.Module, state: Mapping[str, torch.Tensor], where: object) -> None:
    """Copy a state dict into a network, completely or not at all.

    Args:
        net: the network.
        state: name -> tensor; values are cast to the network's own dtypes.
        where: file the state comes from (for the message).

    Raises:
        UserError: keys are missing, left over or of another shape; says which share of the network's
            tensors the file has and names the first of each kind of misfit.
    """
    own = net.state_dict()
    check_fit(own, state, where, what=type(net).__name__)
    net.load_state_dict(dict(state), strict=True)


def check_fit(
    own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], where: object, what: str
) -> None:
    """Refuse a state dict that does not fit `own` completely, naming the first of each kind of misfit.

    Raises:
        UserError: keys are missing, left over or of another shape.
    """
    missing = [key for key in own if key not in state]
    left_over = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or left_over or shapes:
        # rounded down: what is refused is never "100%"
        share = 100 * (len(own) - len(missing) - len(shapes)) // max(len(own), 1)
        parts = [_some("missing", missing), _some("unexpected", left_over), _some("of another shape", shapes)]
        raise UserError(
            f"the weights belong to another network ({share}% of the {len(own)} tensors are in the file): "
            + "; ".join(part for part in parts if part),
            where=where,
            expected=f"a state dict of {what} with exactly its {len(own)} tensors",
        )


def state_hash(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values: the same weights in any file layout."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(f"{key}{tuple(state[key].shape)}".encode())
        digest.update(state[key].detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"not a readable safetensors file: {error}", where=path) from error


def read_pickle(path: Path) -> Any:
    """Whatever tensors and plain values a pickle holds; see `read_state` for what is refused."""
    import pickle

    try:
        with torch.serialization.safe_globals(_numpy_types()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            "the file holds pickled code or is damaged; only tensors and plain values are read: "
            + str(error).strip().splitlines()[0],
            where=path,
            expected="a state dict saved with torch.save, or a .safetensors file",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"not a readable weights file (truncated?): {reason[0]}", where=path) from error


def _numpy_types() -> list[Any]:
    # training scripts leave numpy scalars (best metric, epoch) beside the tensors
    from argparse import Namespace

    import numpy as np
    from numpy._core import multiarray

    kinds = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    makers = (multiarray.scalar, multiarray._reconstruct)
    return [
        # the trainer's command line, which SAM-Med3D's training script saves beside the weights
        Namespace,
        *makers,
        # numpy 1, with which most published checkpoints were saved, had them in another module
        *((maker, f"numpy.core.multiarray.{maker.__name__}") for maker in makers),
        np.dtype,
        np.ndarray,
        *(type(np.dtype(k)) for k in kinds),
    ]


def _unwrap(raw: Any, path: Path) -> tuple[State, list[str]]:
    for name in _WRAPPERS:
        if isinstance(raw, Mapping) and isinstance(raw.get(name), Mapping):
            state, inner = _unwrap(raw[name], path)
            return state, [name, *inner]
    if not isinstance(raw, Mapping) or not raw or not all(isinstance(v, torch.Tensor) for v in raw.values()):
        shown = ", ".join(map(str, list(raw)[:5])) if isinstance(raw, Mapping) else type(raw).__name__
        raise UserError(
            f"the file holds no state dict but: {shown or 'nothing'}",
            where=path,
            expected=f"name -> tensor, plain or under one of {', '.join(_WRAPPERS)}",
        )
    return {str(key): value for key, value in raw.items()}, []


def _strip(state: State, own: Collection[str]) -> tuple[State, list[str]]:
    for prefix in _PREFIXES:
        # names that the network has are right, even where all of them begin like a wrapper's
        if all(key.startswith(prefix) for key in state) and not any(key in own for key in state):
            bare, more = _strip({key.removeprefix(prefix): value for key, value in state.items()}, own)
            return bare, [prefix, *more]
    return state, []


def _some(what: str, keys: Iterable[str], shown: int = 3) -> str:
    names = list(keys)
    more = f" ... ({len(names)} in all)" if len(names) > shown else ""
    return f"{what} {', '.join(names[:shown])}{more}" if names else ""
