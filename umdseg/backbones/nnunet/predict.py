"""One network over one volume exactly as nnU-Net does it: its preprocessor, its windows, its mirroring."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from umdseg.backbones.nnunet.network import quiet
from umdseg.backbones.nnunet.part import Part
from umdseg.data.geometry import Grid, Volume, reoriented
from umdseg.progress import track


@dataclass(frozen=True)
class Predicted:
    """What a network made of a volume.

    Attributes:
        logits: (C, X', Y', Z') float16 on the CPU, in the network's axes and spacing, of the cropped volume.
        grid: their place in patient space.
        codes: directions of the network's axes, such as SAR.
        properties: nnU-Net's notes on cropping and resampling.
    """

    logits: torch.Tensor
    grid: Grid
    codes: str
    properties: dict[str, Any]


def network_axes(part: Part, base: str) -> str:
    """Directions of the network's axes, for images whose (x, y, z) run along `base`.

    nnU-Net's readers give (z, y, x), and the plans may put the axis of the thickest slices first.
    """
    reading = base[::-1]
    return "".join(reading[axis] for axis in part.plans.transpose_forward)


def turned(array: NDArray[Any], own: str, wanted: str) -> NDArray[Any]:
    """Flip and permute the axes of (X, Y, Z) so that they run along `wanted` instead of `own`."""
    import nibabel.orientations as axes

    change = axes.ornt_transform(axes.axcodes2ornt(own), axes.axcodes2ornt(wanted))  # type: ignore[no-untyped-call]
    out: NDArray[Any] = axes.apply_orientation(array, change)  # type: ignore[no-untyped-call]
    return out


def axes_of(grid: Grid) -> str:
    """Directions nearest to the grid's own axes."""
    import nibabel as nib

    return "".join(nib.orientations.aff2axcodes(grid.affine))  # type: ignore[no-untyped-call]


def predict(
    part: Part,
    net: nn.Module,
    states: Sequence[Mapping[str, torch.Tensor] | None],
    channels: Sequence[Volume],
    base: str,
    *,
    step: float,
    mirroring: bool,
    precision: str,
    previous: NDArray[np.integer[Any]] | None = None,
) -> Predicted:
    """Average logits of all folds for one volume.

    Args:
        part: plans, labels.
        net: its network.
        states: weights of each fold; None = those in `net`.
        channels: volumes on one grid, in the network's order.
        base: axis codes that the (x, y, z) of images had in training.
        step: windows are this share of their edge apart.
        mirroring: average over mirrored inputs where the training allows it.
        precision: `auto` is nnU-Net's own (float16 on CUDA, else float32), fp32, bf16.
        previous: (X, Y, Z) labels that the stage before found, on the volumes' grid; of a cascade only.
    """
    native = channels[0].grid
    reading = base[::-1]
    data = np.stack([turned(np.asarray(v.array), axes_of(native), reading) for v in channels])
    # float32 as nnU-Net's readers give labels: its cropping writes -1 into them
    labels = None if previous is None else turned(previous, axes_of(native), reading)[None].astype(np.float32)
    properties: dict[str, Any] = {"spacing": list(reoriented(native, reading).spacing)}
    with quiet():
        preprocessor = part.configuration.preprocessor_class(verbose=False)
        ready, labels, properties = preprocessor.run_case_npy(
            data, labels, properties, part.plans, part.configuration, part.dataset
        )
        if previous is not None:
            ready = np.vstack((ready, _one_hot(part, labels[0], ready.dtype)))
        predictor = _predictor(next(net.parameters()).device, step)
    predictor.manual_initialization(
        None,
        part.plans,
        part.configuration,
        None,
        part.dataset,
        "",
        part.mirroring if mirroring else None,
    )
    image = torch.from_numpy(ready).to(torch.float32).contiguous()
    logits: torch.Tensor | None = None
    # nnU-Net tells where memory ran out; its results may only be changed in inference mode
    with contextlib.redirect_stdout(sys.stderr), torch.inference_mode():
        for number, state in enumerate(states):
            predictor.network = _Fold(net, state, precision)
            predictor.told = f"fold {number + 1} of {len(states)}" if len(states) > 1 else "windows"
            found = predictor.predict_sliding_window_return_logits(image).to("cpu")
            logits = found if logits is None else logits.add_(found)
        assert logits is not None
        if len(states) > 1:
            logits /= len(states)
    codes = network_axes(part, base)
    return Predicted(logits, _place(reoriented(native, codes), properties, logits), codes, properties)


def _one_hot(part: Part, labels: NDArray[Any], kind: Any) -> NDArray[Any]:
    """(labels, X, Y, Z)."""
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

    out: NDArray[Any] = convert_labelmap_to_one_hot(labels, part.labels.foreground_labels, kind)
    return out


def _place(whole: Grid, properties: Mapping[str, Any], logits: torch.Tensor) -> Grid:
    """Place of the resampled crop; resampling keeps the outer faces where they are."""
    box = properties["bbox_used_for_cropping"]
    start, stop = ([int(edge[end]) for edge in box] for end in (0, 1))
    crop = whole.crop((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    shape = (int(logits.shape[1]), int(logits.shape[2]), int(logits.shape[3]))
    scale = np.array(crop.shape) / np.array(shape)
    affine = crop.affine @ np.diag([*scale, 1.0])
    affine[:3, 3] = crop.to_world((scale[None] - 1) / 2)[0]
    return Grid(shape, affine)


def _predictor(device: torch.device, step: float) -> Any:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    class Predictor(nnUNetPredictor):  # type: ignore[misc]
        told = "windows"

        def _internal_get_sliding_window_slicers(self, image_size: tuple[int, ...]) -> list[Any]:
            return _Tracked(super()._internal_get_sliding_window_slicers(image_size), self.told)

    benchmark = torch.backends.cudnn.benchmark
    predictor = Predictor(
        tile_step_size=step,
        use_gaussian=True,
        use_mirroring=True,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    torch.backends.cudnn.benchmark = benchmark
    return predictor


class _Tracked(list[Any]):
    """Windows that tell how far their iteration is."""

    def __init__(self, items: Sequence[Any], what: str) -> None:
        super().__init__(items)
        self._what = what

    def __iter__(self) -> Iterator[Any]:
        return track(list.__iter__(self), f"nnU-Net, {self._what}", unit="window", total=len(self))


class _Fold(nn.Module):
    """A network with one fold's weights, at the precision asked for."""

    def __init__(self, net: nn.Module, state: Mapping[str, torch.Tensor] | None, precision: str) -> None:
        super().__init__()
        device = next(net.parameters()).device
        # not registered: the predictor moves and switches what it owns
        self._net = (net,)
        self._state = None if state is None else {key: value.to(device) for key, value in state.items()}
        self._precision = precision

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self._context(x.device):
            out: torch.Tensor
            if self._state is None:
                out = self._net[0](x)
            else:
                out = torch.func.functional_call(self._net[0], self._state, (x,), strict=True)
        return out if self._precision == "auto" else out.float()

    def _context(self, device: torch.device) -> AbstractContextManager[Any]:
        if self._precision == "auto":
            return nullcontext()
        bf16 = self._precision == "bf16"
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)
