"""The volume session of nnInteractive: its package's own session, one structure after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg.backbones.asked import Asked
from umdseg.backbones.base import BACKGROUND
from umdseg.backbones.nninteractive.steps import Step, steps
from umdseg.backbones.nnunet.network import quiet
from umdseg.backbones.piece import Piece, scores
from umdseg.backbones.precision import autocast
from umdseg.data.geometry import Grid, Volume
from umdseg.errors import UserError
from umdseg.progress import track
from umdseg.vocabulary import Origin, Prompt

if TYPE_CHECKING:
    from umdseg.backbones.nninteractive.backbone import Nninteractive


class NninteractiveSession:
    """One scan under nnInteractive.

    The scan goes in as it is: its own voxels in the axis order (z, y, x) of nnU-Net's readers, unscaled,
    never as 8-bit integers. Every interaction runs the network once, in order, as the authors ask for. A
    prompt that goes on where the last one stopped (the same structure, more clicks) runs only what is new;
    any other starts from an empty scan. Answers are masks: 10 inside, -10 outside.

    In memory are, beside the scan, a float32 copy and 7 float16 channels of it (18 bytes a voxel; above
    2^27 voxels the package keeps the channels compressed), and a byte per voxel of each mask's box.

    Args:
        backbone: in eval mode.
        volume: the scan as it is, in its units.
        origin: chooses among adapters.
        precision: auto (the package's own: float16 on CUDA, else float32), fp32, bf16.

    Raises:
        UserError: unknown precision, or a scan without contrast.
    """

    def __init__(self, backbone: Nninteractive, volume: Volume, origin: Origin | str, precision: str) -> None:
        self.native = volume.grid
        array = np.asarray(volume.array)
        if not array.size or array.min() == array.max():
            raise UserError("the scan holds one value everywhere", expected="an image with contrast")
        self._backbone, self._array = backbone, array
        self._origin, self._precision = Origin.of(origin), precision
        autocast(precision, next(backbone.parameters()).device)
        self._asked = Asked()
        self._found: dict[Prompt, Piece] = {}
        self._engine: Any = None
        self._target: NDArray[np.uint8] | None = None
        # what the engine has been told: structure, interactions
        self._told: tuple[str, list[Step]] = ("", [])

    def prompt(self, prompts: Sequence[Prompt]) -> None:
        """Ask; a prompt replaces the earlier one of the same structure (points are given whole).

        Raises:
            UserError: a prompt that the model does not take.
        """
        self._backbone.check_prompts(prompts)
        self._asked.add(prompts)

    def undo(self) -> None:
        """Take the last call of `prompt` back; the one before is replayed when it is asked for."""
        self._asked.undo()

    def scores(
        self, structures: Sequence[str], grid: Grid | None = None
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """10 inside the mask, -10 outside, on `grid` (None: the scan's own) resampled linearly.

        Raises:
            UserError: a structure that nobody asked for.
        """
        asked = self._asked.of(structures)
        self._backbone.check_prompts(asked)
        for prompt in asked:
            if prompt not in self._found:
                self._found[prompt] = self._run(prompt)
        pieces = [self._found[prompt] for prompt in asked]
        self._found = self._asked.kept(self._found)
        yield from scores(pieces, self.native, grid or self.native)

    def _run(self, prompt: Prompt) -> Piece:
        # the network's axes are the scan's in reverse
        thickness = self._backbone.thickness[::-1]
        wanted = steps(prompt, self.native, self._backbone.solid_boxes, thickness)
        if not wanted:
            return Piece(torch.zeros(0, 0, 0), (0, 0, 0))
        with self._backbone.routed(self._origin):
            return self._follow(prompt.structure, wanted)

    def _follow(self, structure: str, wanted: list[Step]) -> Piece:
        engine, target = self._opened()
        name, before = self._told
        if name != structure or wanted[: len(before)] != before:
            with quiet():
                engine.reset_interactions()
            before = []
        # a broken call leaves a state that nothing goes on from
        self._told = ("", [])
        new = wanted[len(before) :]
        for step in track(new, f"nnInteractive, {structure}", unit="interaction", total=len(new)):
            with quiet():
                _tell(engine, step)
        self._told = (structure, wanted)
        return _piece(target)

    def _opened(self) -> tuple[Any, NDArray[np.uint8]]:
        if self._engine is None or self._target is None:
            engine = self._backbone.engine(self._precision)
            self._target = np.zeros(self._array.shape[::-1], dtype=np.uint8)
            with quiet():
                engine.set_image(np.ascontiguousarray(self._array.T, dtype=np.float32)[None])
                engine.set_target_buffer(self._target)
                # waits for the package's threads, so that what they print is kept off standard output
                engine._finish_preprocessing_and_initialize_interactions()
            self._engine = engine
        return self._engine, self._target


def _tell(engine: Any, step: Step) -> None:
    low, high = step.low[::-1], step.high[::-1]
    if step.kind == "point":
        engine.add_point_interaction(low, include_interaction=step.inside)
        return
    box = [[a, b] for a, b in zip(low, high, strict=True)]
    if step.mask is None:
        engine.add_bbox_interaction(box, include_interaction=step.inside)
        return
    # the box of the mask says where it lies: no copy of the whole scan is needed
    mask = np.ascontiguousarray(step.mask.T, dtype=np.uint8)
    add = engine.add_lasso_interaction if step.kind == "lasso" else engine.add_scribble_interaction
    add(mask, include_interaction=step.inside, interaction_bbox=box)


def _piece(target: NDArray[np.uint8]) -> Piece:
    """The mask's box of a (Z, Y, X) target buffer."""
    ends = []
    for axis in (2, 1, 0):
        others = tuple(other for other in range(3) if other != axis)
        hit = np.flatnonzero(target.any(axis=others))
        if not len(hit):
            return Piece(torch.zeros(0, 0, 0), (0, 0, 0))
        ends.append((int(hit[0]), int(hit[-1]) + 1))
    x, y, z = (slice(*end) for end in ends)
    inside = torch.from_numpy(target[z, y, x].T > 0)
    values = torch.where(inside, -BACKGROUND, BACKGROUND).to(torch.int8)
    return Piece(values, (ends[0][0], ends[1][0], ends[2][0]))
