"""The volume session of SAM-Med3D models: windows around clicks, growing where the answer does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from umdseg.backbones.base import BACKGROUND, Features
from umdseg.backbones.prompted import PromptedSession
from umdseg.backbones.vista3d_points import inside
from umdseg.data.geometry import Grid, Volume, resample_slabs
from umdseg.data.preprocess import Preprocessing, prepare_together
from umdseg.progress import track
from umdseg.vocabulary import Modality, Origin, Prompt

if TYPE_CHECKING:
    from umdseg.backbones.sam3d import Sam3d

Shape = tuple[int, int, int]


class Sam3dSession(PromptedSession[dict[Shape, torch.Tensor]]):
    """One scan under a SAM-Med3D model.

    A positive click outside all windows so far opens one with the click in its middle, padded with 0 where it
    reaches beyond the scan (torchio's `CropOrPad`); further clicks inside it change only the prompt. Never
    does a reference mask decide where a window lies. Where the answer touches a window's border and the
    scan goes on, a neighbour that overlaps by half is asked, prompted by the logits it shares with the
    window and by a click at the deepest place of the shared mask; up to `backbone.windows` in all.

    Args:
        backbone: in eval mode.
        volumes: modality -> scan as it is, in its units; several for a fusion.
        origin: chooses among adapters.
        precision: auto, fp32, bf16.
        fused: the `umdseg.fusion.Fused` around the backbone that encodes and decodes, on the lattice of its
            leading scan; None: the backbone itself.
    """

    def __init__(
        self,
        backbone: Sam3d,
        volumes: Mapping[Modality, Volume],
        origin: Origin | str,
        precision: str,
        fused: Any = None,
    ) -> None:
        card, leading = backbone.card, next(iter(volumes)) if fused is None else fused.leading
        super().__init__(backbone if fused is None else fused, volumes[leading].grid, origin, precision)
        numbers = Preprocessing(card.spacing, card.intensity, card.crop, (1, 1, 1), card.orientation)
        prepared = prepare_together(volumes, leading, numbers)
        self._backbone, self._image, self._grid = backbone, prepared.image, prepared.grid
        # less than a megabyte each
        self._features: dict[Shape, Features] = {}

    def _answer(self, prompt: Prompt) -> dict[Shape, torch.Tensor]:
        """First corner -> logits (X, Y, Z) on the CPU of every window that the prompt leads to."""
        what, most = f"windows of {prompt.structure}", self._backbone.windows
        return dict(track(self._followed_up(prompt), what, "window", total=most))

    def _sampler(self, answer: dict[Shape, torch.Tensor]) -> Callable[[Grid], torch.Tensor]:
        return lambda part: self._blended(answer, part)

    def _followed_up(self, prompt: Prompt) -> Iterator[tuple[Shape, torch.Tensor]]:
        """The windows of the clicks, then their neighbours, nearest first."""
        waiting: list[tuple[Shape, torch.Tensor]] = []
        for start in self._opened(prompt):
            waiting.append((start, self._model.decode(self._encoded(start), [prompt])[0, 0].float().cpu()))
        yield from waiting
        seen = {start for start, _ in waiting}
        while waiting:
            start, logits = waiting.pop(0)
            for beside in self._touched(start, logits):
                if beside not in seen and len(seen) < self._backbone.windows:
                    seen.add(beside)
                    waiting.append((beside, self._followed(prompt, beside, start, logits)))
                    yield waiting[-1]

    def _opened(self, prompt: Prompt) -> list[Shape]:
        starts: list[Shape] = []
        for point, sign in zip(prompt.points, prompt.signs, strict=True):
            voxel = np.round(self._grid.to_index(np.array([point]))[0], 3)
            outside = (voxel < -0.5).any() or (voxel > np.array(self._grid.shape) - 0.5).any()
            if sign and not outside and not any(self._holds(start, voxel) for start in starts):
                corner = [round(v) - n // 2 for v, n in zip(voxel, self._backbone.card.window, strict=True)]
                starts.append((corner[0], corner[1], corner[2]))
        return starts

    def _holds(self, start: Shape, voxel: np.ndarray) -> bool:
        low = np.array(start) - 0.5
        return bool(((voxel >= low) & (voxel <= low + np.array(self._backbone.card.window))).all())

    def _place(self, start: Shape) -> Grid:
        x, y, z = (a + n for a, n in zip(start, self._backbone.card.window, strict=True))
        return self._grid.crop(start, (x, y, z))

    def _encoded(self, start: Shape) -> Features:
        if start not in self._features:
            part = torch.zeros(1, len(self._image), *self._backbone.card.window)
            edges = zip(start, self._backbone.card.window, self._grid.shape, strict=True)
            boxes = [(max(a, 0), min(a + n, size), a) for a, n, size in edges]
            inner = tuple(slice(low - a, high - a) for low, high, a in boxes)
            outer = tuple(slice(low, high) for low, high, _ in boxes)
            part[0][(slice(None), *inner)] = self._image[(slice(None), *outer)]
            affine = torch.from_numpy(self._place(start).affine)[None]
            self._features[start] = self._model.encode(part.to(self._device), affine)
        return self._features[start]

    def _touched(self, start: Shape, logits: torch.Tensor) -> Iterator[Shape]:
        """First corners of the neighbours across every face that the answer touches inside the scan."""
        for axis, (edge, size) in enumerate(zip(self._backbone.card.window, self._grid.shape, strict=True)):
            for step, face, more in (
                (-(edge // 2), 0, start[axis] > 0),
                (edge // 2, edge - 1, start[axis] + edge < size),
            ):
                if more and bool((logits.select(axis, face) > 0).any()):
                    beside = list(start)
                    beside[axis] += step
                    yield beside[0], beside[1], beside[2]

    def _followed(self, prompt: Prompt, start: Shape, before: Shape, logits: torch.Tensor) -> torch.Tensor:
        """Logits (X, Y, Z) of a neighbour, led by what it shares with the window before it."""
        known = _moved(logits, [b - a for a, b in zip(before, start, strict=True)])
        deepest = _deepest(known > 0)
        features = self._encoded(start)
        coords, signs = inside(prompt, features.affine[0], features.shape)
        coords = torch.cat([torch.tensor([deepest], dtype=coords.dtype), coords])
        signs = torch.cat([torch.ones(1, dtype=signs.dtype), signs])
        size = [edge // 4 for edge in features.shape]
        low = functional.interpolate(known[None, None], size=size, mode="trilinear", align_corners=False)
        led = low.to(self._device)

        def step(one: Features) -> torch.Tensor:
            refined = self._backbone.refine(one.maps[0], coords, signs, led)
            return self._backbone.enlarge(refined)[None, None]

        return self._model.answered(features, [prompt.structure], step)[0, 0].cpu()

    def _blended(self, windows: dict[Shape, torch.Tensor], part: Grid) -> torch.Tensor:
        """(X, Y, dz); where windows overlap, their mean weighted towards each window's middle."""
        from monai.data.utils import compute_importance_map

        total = torch.zeros(2, *part.shape)
        mode = "gaussian" if len(windows) > 1 else "constant"
        weight = torch.as_tensor(compute_importance_map(self._backbone.card.window, mode=mode))
        for start, logits in windows.items():
            place = self._place(start)
            box = _reach(place, part)
            if box is not None:
                near = part.crop(box[0], box[1])
                values = torch.stack([logits * weight, weight])
                pieces = resample_slabs(values, place, near, outside=0.0, slab=near.shape[2])
                at = tuple(slice(a, b) for a, b in zip(*box, strict=True))
                total[(slice(None), *at)] += next(piece for _, piece in pieces)
        mean = total[0] / total[1].clamp(min=1e-12)
        return torch.where(total[1] > 0, mean, torch.full_like(mean, BACKGROUND))


def _moved(logits: torch.Tensor, by: Sequence[int]) -> torch.Tensor:
    """The same values in a window whose first corner lies `by` voxels further; 0 where they end."""
    out = torch.zeros_like(logits)
    ends = list(zip(by, logits.shape, strict=True))
    source = tuple(slice(max(d, 0), n + min(d, 0)) for d, n in ends)
    out[tuple(slice(max(-d, 0), n - max(d, 0)) for d, n in ends)] = logits[source]
    return out


def _deepest(mask: torch.Tensor) -> list[float]:
    """The voxel farthest from the mask's outside; the window's border counts as outside."""
    depth = ndimage.distance_transform_edt(np.pad(mask.numpy(), 1))[1:-1, 1:-1, 1:-1]
    return [float(v) for v in np.unravel_index(int(np.argmax(depth)), depth.shape)]


def _reach(window: Grid, part: Grid) -> tuple[Shape, Shape] | None:
    """First and last (exclusive) of the part's voxels that may lie in a window; None where there are none."""
    faces = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in window.shape], indexing="ij")).reshape(3, -1).T
    index = part.to_index(window.to_world(faces))
    low = np.clip(np.floor(index.min(axis=0)).astype(int), 0, part.shape)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, 0, part.shape)
    if (low >= high).any():
        return None
    return (int(low[0]), int(low[1]), int(low[2])), (int(high[0]), int(high[1]), int(high[2]))
