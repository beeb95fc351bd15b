"""Windows around clicks: each encoded once, decoded for every new click."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from umdseg.backbones.base import Backbone, Features
from umdseg.data.geometry import Grid
from umdseg.inference.stitch import Shape
from umdseg.vocabulary import Millimetres, Prompt


class ClickWindows:
    """The windows that clicks opened on one volume; the features of the last two are kept."""

    kept = 2

    def __init__(
        self, backbone: Backbone, grid: Grid, window: Shape, encode: Callable[[Shape], Features]
    ) -> None:
        self._backbone, self._grid, self._window, self._encode = backbone, grid, window, encode
        self._features: OrderedDict[Shape, Features] = OrderedDict()

    def decode(self, prompt: Prompt) -> list[tuple[Grid, torch.Tensor]]:
        """Logits (X, Y, Z) float32 on the CPU of every window the prompt's points opened."""
        found = []
        # what the clicks say alone; the class has been asked already, over the whole volume
        clicked = replace(prompt, kind="clicks") if prompt.kind == "auto_point" else prompt
        for start in self._starts(prompt):
            logits = self._backbone.decode(self._of(start), [clicked])[0, 0]
            stop = [a + n for a, n in zip(start, self._window, strict=True)]
            found.append((self._grid.crop(start, (stop[0], stop[1], stop[2])), logits.float().cpu()))
        return found

    def _of(self, start: Shape) -> Features:
        if start not in self._features:
            self._features[start] = self._encode(start)
        self._features.move_to_end(start)
        while len(self._features) > self.kept:
            self._features.popitem(last=False)
        return self._features[start]

    def _starts(self, prompt: Prompt) -> list[Shape]:
        """First corners: a place in none of the windows so far opens one, centred on it.

        Places are clicks, and the middles of a box and of contours; what reaches beyond the window of a
        large box is not looked at. So a further click nearby changes the points, not the window, and only
        the decoder runs. Negative places open none, unless there is an answer by class that they correct;
        places outside the volume are nowhere.
        """
        starts: list[Shape] = []
        for point, sign in _places(prompt):
            voxel = np.round(self._grid.to_index(np.array([point]))[0], 3)
            inside = bool(((voxel >= -0.5) & (voxel <= np.array(self._grid.shape) - 0.5)).all())
            silent = sign == 0 and prompt.kind != "auto_point"
            if silent or not inside or any(self._holds(start, voxel) for start in starts):
                continue
            corner = [
                int(np.clip(round(v) - n // 2, 0, size - n))
                for v, n, size in zip(voxel, self._window, self._grid.shape, strict=True)
            ]
            starts.append((corner[0], corner[1], corner[2]))
        return starts

    def _holds(self, start: Shape, voxel: np.ndarray) -> bool:
        low, high = np.array(start) - 0.5, np.array(start) + np.array(self._window) - 0.5
        return bool(((voxel >= low) & (voxel <= high)).all())


def _places(prompt: Prompt) -> list[tuple[Millimetres, int]]:
    """Where a prompt points at, with its signs."""
    drawn = [(np.mean(contour.points, axis=0), contour.sign) for contour in prompt.contours]
    if prompt.box is not None:
        drawn.append((np.mean(prompt.box, axis=0), 1))
    middles = [((float(x), float(y), float(z)), sign) for (x, y, z), sign in drawn]
    return [*zip(prompt.points, prompt.signs, strict=True), *middles]
