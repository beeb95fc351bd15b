"""nnInteractive (package `nninteractive`): a residual U-Net that sees the prompts as input channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from umdseg.backbones.base import BACKGROUND, Backbone, Features
from umdseg.backbones.card import Card
from umdseg.backbones.nninteractive.session import NninteractiveSession
from umdseg.backbones.nninteractive.steps import Step, steps
from umdseg.backbones.nnunet.network import quiet
from umdseg.data.geometry import Grid, Volume
from umdseg.vocabulary import Origin, Prompt


class Nninteractive(Backbone):
    """Whole scans go through the package's own session; windows, through the network alone.

    Attributes:
        artifacts: what the package's session is made of, but for the network.
        channels: interaction -> its channels (inside, outside) among those after the image.
        prev_seg: channel of the mask so far.
        count: channels after the image.
        solid_boxes: whether boxes may be three-dimensional.
        thickness: of scribbles as the network was trained with them, in voxels along its axes.
        autozoom: whether sessions zoom out where the answer reaches the border.

    Args:
        card: facts.
        net: the network.
        artifacts: as above.
        read: a session of the package that has read the folder's facts.
        autozoom: as above.
    """

    def __init__(
        self, card: Card, net: nn.Module, artifacts: Mapping[str, Any], read: Any, autozoom: bool = True
    ) -> None:
        super().__init__()
        self.card, self.net, self.new_structures = card, net, {}
        self.artifacts, self.autozoom = dict(artifacts), autozoom
        self.channels: dict[str, Any] = dict(read.channel_mapping)
        self.prev_seg, self.count = int(self.channels["prev_seg"]), int(read.num_interaction_channels)
        self.solid_boxes = bool(read.supported_interactions["bbox3d"])
        first, second, third = (float(edge) for edge in artifacts["preferred_scribble_thickness"])
        self.thickness = (first, second, third)

    def knows(self, structure: str) -> bool:
        """Anything can be clicked on; there are no classes."""
        del structure
        return True

    def encode(self, image: torch.Tensor, affine: torch.Tensor | None = None) -> Features:
        """Keep windows (B, 1, X, Y, Z): prompts enter with the image, so there is nothing to encode before.

        Without `affine`, voxel 0 is at 0 mm, voxels are 1 mm and axes are those of the card.
        """
        edges = self.check_edges(image)
        if affine is None:
            turned = torch.zeros(4, 4, dtype=torch.float64)
            for axis, code in enumerate(self.card.orientation):
                turned["RAS".index(code), axis] = 1
            turned[3, 3] = 1
            affine = turned.expand(image.shape[0], 4, 4)
        return Features([image], affine, edges)

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (B, K, X, Y, Z), each prompt by itself: the object's less the background's.

        Interactions enter one after the other, each with the mask of those before and older ones fainter, as
        in the package's session; the window stays where it is, and there is no zooming out.
        """
        self.check_prompts(prompts)
        samples = [features.sample(i) for i in range(features.maps[0].shape[0])]
        return torch.stack([torch.stack([self._asked(one, p) for p in prompts]) for one in samples])

    def session(self, volume: Volume, origin: Origin | str, *, overlap: float | None, precision: str) -> Any:
        """The package's session: it follows the answer by zooming out, then refines it in tiles."""
        del overlap
        return NninteractiveSession(self, volume, origin, precision)

    def engine(self, precision: str) -> Any:
        """A session of the package around this network, without its own undo."""
        from nnInteractive.inference.inference_session import nnInteractiveInferenceSession

        with unchanged(), quiet():
            device = next(self.net.parameters()).device
            engine = nnInteractiveInferenceSession(
                device=device,
                torch_n_threads=torch.get_num_threads(),
                do_autozoom=self.autozoom,
                enable_undo=False,
            )
            network = self.net if precision == "auto" else _at(self.net, precision)
            engine.initialize_from_loaded_artifacts({**self.artifacts, "network": network})
        return engine

    def _asked(self, one: Features, prompt: Prompt) -> torch.Tensor:
        """(X, Y, Z)."""
        image = one.maps[0]
        place = Grid(one.shape, one.affine[0].to("cpu", torch.float64).numpy())
        wanted = steps(prompt, place, self.solid_boxes, self.thickness)
        told = torch.zeros(self.count, *one.shape, device=image.device)
        logits = torch.full(one.shape, BACKGROUND, device=image.device)
        for step in wanted:
            others = [channel for channel in range(self.count) if channel != self.prev_seg]
            told[others] *= self.artifacts["interaction_decay"]
            pair = self.channels[self._channel(step)]
            self._tell(step, told[pair[0] if step.inside else pair[1]])
            answer = self.net(torch.cat([image, told[None].to(image.dtype)], dim=1))[0]
            logits = answer[1] - answer[0]
            told[self.prev_seg] = (logits.detach() > 0).to(told.dtype)
        return logits

    def _tell(self, step: Step, channel: torch.Tensor) -> None:
        """Write one interaction into its channel (X, Y, Z)."""
        place = tuple(slice(a, b) for a, b in zip(step.low, step.high, strict=True))
        if step.kind == "point":
            self.artifacts["point_interaction"].place_point(list(step.low), channel)
        elif step.mask is not None:
            mask = torch.from_numpy(step.mask).to(channel.device, channel.dtype)
            channel[place] = torch.maximum(channel[place], mask)
        else:
            channel[place] = 1

    def _channel(self, step: Step) -> str:
        if step.kind == "point":
            return "points"
        if step.kind != "box":
            return step.kind
        flat = any(b - a == 1 for a, b in zip(step.low, step.high, strict=True))
        return "bbox2d" if flat or not self.solid_boxes else "bbox3d"


@contextmanager
def unchanged() -> Iterator[None]:
    """The package's session sets torch's threads and cuDNN's benchmark mode; they are put back."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark


def _at(net: nn.Module, precision: str) -> Any:
    """The network in float32 or bfloat16, whatever context the package runs it in."""

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            return cast(torch.Tensor, net(x)).float()

    return run
