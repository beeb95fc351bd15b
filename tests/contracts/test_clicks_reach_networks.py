"""A click in millimetres lands on the structure in what the network itself receives, however a scan lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from umdseg import inference, registry
from umdseg.backbones import Backbone
from umdseg.data.geometry import Grid, Volume
from umdseg.vocabulary import Prompt

# (image around the click, index of the click in it), as they come to the network
Seen = list[tuple[torch.Tensor, tuple[int, ...]]]
TURN = np.array([[0.94, -0.34, 0], [0.34, 0.94, 0], [0, 0, 1]])
AXES = {
    "anisotropic": np.diag([2.0, 3.0, 5.0]),
    "flipped": np.diag([-2.0, 2.5, -4.0]),
    "permuted": np.array([[0, 0, -4.0], [3.0, 0, 0], [0, 2.0, 0]]),
    "oblique": TURN @ np.diag([2.0, -2.0, 4.0]),
}
CENTRE = np.array([13.0, -31.0, 57.0])
# of a ball of 14 mm radius, off the middle along every axis
BALL, RADIUS = CENTRE + np.array([21.0, -14.0, 24.0]), 14.0


def scan(axes: np.ndarray) -> Volume:
    """A body of -20 HU in air with a bright ball."""
    affine = np.eye(4)
    affine[:3, :3] = axes
    shape = tuple(int(n) for n in np.round(140 / np.linalg.norm(axes, axis=0)))
    affine[:3, 3] = CENTRE - axes @ (np.array(shape) - 1) / 2
    grid = Grid((shape[0], shape[1], shape[2]), affine)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    world = grid.to_world(index.astype(float)).reshape(*shape, 3)
    values = np.where((np.abs(world - CENTRE) < 55).all(axis=-1), -20.0, -1000.0)
    values[np.linalg.norm(world - BALL, axis=-1) < RADIUS] = 230.0
    return Volume(values.astype(np.float32), grid)


def spy_vista3d(net: Any, seen: Seen) -> None:
    images: list[torch.Tensor] = []
    net.image_encoder.encoder.register_forward_pre_hook(lambda _, args: images.append(args[0][0, 0]))

    def clicked(_: Any, args: Any) -> None:
        seen.append((images[-1], rounded(args[1][0, 0])))

    net.point_head.register_forward_pre_hook(clicked)


def spy_sam3d(net: Any, seen: Seen) -> None:
    images: list[torch.Tensor] = []
    net.image_encoder.register_forward_pre_hook(lambda _, args: images.append(args[0][0, 0]))

    def clicked(_: Any, args: Any, named: Any) -> None:
        seen.append((images[-1], rounded(named["points"][0][0, 0])))

    net.prompt_encoder.register_forward_pre_hook(clicked, with_kwargs=True)


def spy_sam2d(net: Any, seen: Seen) -> None:
    images: list[torch.Tensor] = []

    def looked(_: Any, args: Any, named: Any) -> None:
        # (rows, columns) -> (column, row), as points are given
        images.append((args[0] if args else named["pixel_values"])[0, 0].T)

    def clicked(_: Any, args: Any, named: Any) -> None:
        boxes, points = named.get("input_boxes"), named.get("input_points")
        if boxes is not None:
            seen.append((images[-1], rounded(boxes.reshape(2, 2).mean(dim=0))))
        else:
            # a box may come as two corner clicks
            corner = int(named["input_labels"].flatten()[0]) == 2
            seen.append((images[-1], rounded(points.reshape(-1, 2)[: 1 + corner].mean(dim=0))))

    net.vision_encoder.register_forward_pre_hook(looked, with_kwargs=True)
    net.prompt_encoder.register_forward_pre_hook(clicked, with_kwargs=True)


def spy_nninteractive(backbone: Any, seen: Seen) -> None:
    channel = 1 + backbone.channels["points"][0]

    def clicked(_: Any, args: Any) -> None:
        points = args[0][0, channel]
        place = torch.nonzero(points == points.max()).float().mean(dim=0)
        seen.append((args[0][0, 0], rounded(place)))

    backbone.net.register_forward_pre_hook(clicked)


def rounded(place: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(v) for v in (place.float() + 0.5).floor())


def spy(backbone: Backbone, family: str) -> Seen:
    seen: Seen = []
    if family == "nninteractive":
        spy_nninteractive(backbone, seen)
    else:
        spies: dict[str, Callable[[Any, Seen], None]] = {
            "vista3d": spy_vista3d, "sam3d": spy_sam3d, "sam2d": spy_sam2d,
        }  # fmt: skip
        # a family that takes positions needs a row here
        spies[family](backbone.net, seen)
    return seen


@pytest.mark.parametrize("axes", AXES)
def test_the_network_is_clicked_where_the_structure_is(models: Any, name: str, axes: str) -> None:
    listing = registry.resolve("model", name).listing()
    kind = next(k for k in ("point", "box") if k in listing.prompts)
    backbone = models(name)
    seen = spy(backbone, listing.family)
    x, y, z = BALL.tolist()
    low, high = (BALL - RADIUS).tolist(), (BALL + RADIUS).tolist()
    prompt = Prompt("liver", kind, ((x, y, z),), (1,))
    if kind == "box":
        prompt = Prompt("liver", kind, box=((low[0], low[1], low[2]), (high[0], high[1], high[2])))
    session = inference.open(backbone, scan(AXES[axes]), "ct", precision="fp32")
    session.prompt([prompt])
    next(iter(session.scores(["liver"])))
    image, place = seen[0]
    # every scale of intensities keeps the order; the body is 250 of 1230 HU below the ball
    bright = image.float() > image.max() - 0.1 * (image.max() - image.min())
    assert bright[place], f"the click came to {place}, where the network sees no ball"
    # in the middle of the ball, not merely inside
    found = torch.nonzero(bright).float()
    middle, size = found.mean(dim=0), found.amax(dim=0) - found.amin(dim=0)
    assert bool(((middle - torch.tensor(place)).abs() <= (size / 6).clamp(min=1.0)).all()), (middle, place)
    centre = (torch.tensor(image.shape) - 1) / 2
    if bool(((middle - centre).abs() > size / 2).any()):
        # a window around the click has it in its middle whatever is mirrored
        mirrored = tuple(int(n) - 1 - p for n, p in zip(image.shape, place, strict=True))
        assert not bright[mirrored], "a mirrored click would have hit too"
