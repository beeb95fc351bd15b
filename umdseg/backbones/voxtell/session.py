"""The volume session of VoxTell: its package's own predictor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from umdseg.backbones.asked import Asked
from umdseg.backbones.nnunet.predict import axes_of, turned
from umdseg.backbones.piece import Piece, scores
from umdseg.backbones.precision import autocast
from umdseg.data.geometry import Grid, Volume, reoriented
from umdseg.errors import UserError
from umdseg.vocabulary import Origin, Prompt

if TYPE_CHECKING:
    from umdseg.backbones.voxtell.backbone import Voxtell

# logits of one pass over the scan, in float16 2 bytes each; the image is encoded once per pass
PASS_NUMBERS = 1 << 31


class VoxtellSession:
    """One scan under VoxTell, every text asked once, as `VoxTellPredictor` does it.

    The scan's own voxels, turned to RAS (read as z, y, x), cropped to the box of those other than 0,
    z-scored, in windows that overlap by half. Nothing is resampled (for unusual spacings the authors suggest
    scans of 1.5 mm). On the scan's own grid the sign of a logit is the package's
    decision, voxel by voxel. In memory are the logits of the texts in use, in float16.

    Args:
        backbone: in eval mode.
        volume: the scan as it is, in its units.
        origin: chooses among adapters.
        overlap: share by which windows overlap; None = 1/2, as the package does.
        precision: auto (the package's own: float16 on CUDA, else float32), fp32, bf16.

    Raises:
        UserError: unknown precision, or a scan of zeros.
    """

    def __init__(
        self, backbone: Voxtell, volume: Volume, origin: Origin | str, overlap: float | None, precision: str
    ) -> None:
        self.native = volume.grid
        self._backbone, self._origin = backbone, Origin.of(origin)
        autocast(precision, next(backbone.parameters()).device)
        step = 1 - (backbone.card.overlap if overlap is None else overlap)
        self._predictor = _predictor(backbone, step, precision)
        array = np.asarray(volume.array)
        if not array.any():
            raise UserError("the scan holds nothing but 0", expected="an image")
        codes = backbone.card.orientation
        self._image, box, _ = self._predictor.preprocess(turned(array, axes_of(self.native), codes))
        whole = reoriented(self.native, codes)
        first, last = ([int(edge[end]) for edge in box] for end in (0, 1))
        crop = whole.crop((first[0], first[1], first[2]), (last[0], last[1], last[2]))
        # the crop's first voxel in the scan's own axes
        index = np.rint(self.native.to_index(crop.to_world(crop.corners()))).astype(int).min(axis=0)
        self._start = (int(index[0]), int(index[1]), int(index[2]))
        self._asked = Asked()
        self._found: dict[str, torch.Tensor] = {}

    def prompt(self, prompts: Sequence[Prompt]) -> None:
        """Ask; a prompt replaces the earlier one of the same structure.

        Raises:
            UserError: a prompt of another kind, or a text without an embedding.
        """
        self._backbone.check_prompts(prompts)
        self._asked.add(prompts)

    def undo(self) -> None:
        """Take the last call of `prompt` back."""
        self._asked.undo()

    def scores(
        self, structures: Sequence[str], grid: Grid | None = None
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Logits on `grid` (None: the scan's own), resampled linearly, as (z slice, (K, X, Y, dz) float32).

        Structures without a prompt are asked for by name; of groups, the highest of their members counts.
        """
        asked = [self._backbone.texts(prompt) for prompt in self._asked.of(structures)]
        self._run(sorted({text for texts in asked for text in texts}))
        pieces = []
        for texts in asked:
            values = self._found[texts[0]]
            for text in texts[1:]:
                values = torch.maximum(values, self._found[text])
            pieces.append(Piece(values, self._start))
        yield from scores(pieces, self.native, grid or self.native)

    def _run(self, texts: list[str]) -> None:
        self._found = {text: found for text, found in self._found.items() if text in texts}
        new = [text for text in texts if text not in self._found]
        chunk = max(PASS_NUMBERS // self._image.numel(), 1)
        for start in range(0, len(new), chunk):
            some = new[start : start + chunk]
            vectors = self._backbone.bank.embeddings(some)[None].to(self._predictor.device)
            with self._backbone.routed(self._origin):
                logits = self._predictor.predict_sliding_window_return_logits(self._image, vectors)
            for text, found in zip(some, logits.cpu(), strict=True):
                back = turned(found.numpy(), self._backbone.card.orientation, axes_of(self.native))
                self._found[text] = torch.from_numpy(np.ascontiguousarray(back))


def _predictor(backbone: Voxtell, step: float, precision: str) -> Any:
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import ZScoreNormalization
    from voxtell.inference.predictor import VoxTellPredictor

    class Predictor(VoxTellPredictor):  # type: ignore[misc]
        # the package's own constructor downloads, and runs whatever code a checkpoint holds
        def __init__(self) -> None:
            self.device = next(backbone.parameters()).device
            self.normalization = ZScoreNormalization(intensityproperties={})
            self.tile_step_size, self.perform_everything_on_device = step, True
            self.patch_size = list(backbone.card.window)
            self.network = _At(backbone.net, precision)

    return Predictor()


class _At(nn.Module):
    """The network at the precision asked for; not registered: the predictor moves what it owns."""

    def __init__(self, net: nn.Module, precision: str) -> None:
        super().__init__()
        self._net, self._precision = (net,), precision

    def forward(self, image: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        if self._precision == "auto":
            return torch.as_tensor(self._net[0](image, texts))
        with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=self._precision == "bf16"):
            return torch.as_tensor(self._net[0](image, texts)).float()
