"""Fusions of models with a session of their own, over whole scans, against the plain model's session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from umdseg import inference, registry
from umdseg.backbones import Backbone
from umdseg.data.geometry import Grid, Volume
from umdseg.data.preprocess import prepare_image
from umdseg.fusion import Fused, build
from umdseg.inference.preprocessing import preprocessing
from umdseg.inference.session import VolumeSession
from umdseg.inference.together import open_together
from umdseg.vocabulary import Modality, Prompt

Asks = list[Prompt]
SLICES, WINDOWS = ("sam_vit_b", "medsam", "sam2_tiny", "medsam2"), ("sam_med3d_turbo",)
CELLS = [(f, b) for f in ("gated", "late") for b in SLICES + WINDOWS] + [("early", "sam_med3d_turbo")]
# a place in the body, axes stored left-posterior: the network's order for slices, not that for windows
CT = Grid((24, 20, 9), np.array([[-2.0, 0, 0, 63], [0, -2.0, 0, -41], [0, 0, 5.0, 120], [0, 0, 0, 1]]))
# longer than two windows of 32 voxels of 1.5 mm
LONG = Grid((30, 28, 40), np.array([[-2.0, 0, 0, 63], [0, -2.0, 0, -41], [0, 0, 2.5, 120], [0, 0, 0, 1]]))


def turned(grid: Grid, degrees: float, spacing: float) -> Grid:
    """A coarser grid around the same middle, turned in the axial plane."""
    angle = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:2, :2] = spacing * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    affine[2, 2] = spacing
    shape = (16, 16, 14)
    affine[:3, 3] = middle(grid) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def middle(grid: Grid) -> np.ndarray:
    return grid.to_world((np.array([grid.shape]) - 1) / 2)[0]


def scan(grid: Grid, seed: int) -> Volume:
    """A bright rod along the body on noise."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    far = np.linalg.norm((grid.to_world(index) - middle(grid))[:, :2], axis=1).reshape(grid.shape)
    noise = np.random.default_rng(seed).uniform(0, 60, grid.shape)
    return Volume((180.0 * (far < 9) + noise).astype(np.float32), grid)


@pytest.fixture(scope="module")
def bases() -> dict[str, Backbone]:
    """Plain models, built once: no fusion changes them."""
    return {}


@pytest.fixture
def make(models: Any, bases: dict[str, Backbone]) -> Callable[..., Fused]:
    def fused(fusion: str, base: str, modalities: tuple[str, ...] = ("ct", "mr")) -> Fused:
        if base not in bases:
            bases[base] = models(base).requires_grad_(False).eval()
            # start values are so small that every answer is 0 to five digits
            noise = torch.Generator().manual_seed(2)
            for name, parameter in bases[base].net.named_parameters():
                drawn = torch.randn(parameter.shape, generator=noise)
                if base in ("sam2_tiny", "medsam2"):
                    # norms scale by about 1, and the network believes to see something
                    middle = float(parameter.ndim == 1 and name.endswith("weight"))
                    middle += 3.0 * name.endswith("pred_obj_score_head.proj_out.bias")
                    parameter.copy_(0.15 * drawn + middle)
                else:
                    parameter += (0.2 if base in SLICES else 0.02) * drawn
        options = registry.resolve("fusion", fusion).Options(name=fusion)
        made = build(options, bases[base], modalities, "ct", ["liver"])
        assert isinstance(made, Fused)
        return made.eval()

    return fused


def shake(fused: Fused) -> None:
    """Trained values."""
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in fused.parts.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=noise)


def asked(base: str, grid: Grid) -> list[Asks]:
    """Calls one after the other: a click, another one on another slice; or two boxes."""
    x, y, z = (float(v) for v in middle(grid))
    if base in ("medsam", "medsam2"):
        ends = [((x - 9, y - 9, z - d), (x + 9, y + 9, z + d)) for d in (6, 14)]
        return [[Prompt("liver", "box", box=box)] for box in ends]
    first = Prompt("liver", "point", ((x, y, z),), (1,))
    return [[first], [Prompt("liver", "clicks", ((x, y, z), (x + 6, y, z + 10)), (1, 1))]]


def answers(session: VolumeSession, calls: list[Asks], grid: Grid | None = None) -> list[torch.Tensor]:
    """Logits (X, Y, Z) after every call."""
    found = []
    for prompts in calls:
        session.prompt(prompts)
        found.append(torch.cat([part for _, part in session.scores(["liver"], grid)], dim=-1)[0])
    return found


def field(base: str) -> Grid:
    return CT if base in SLICES else LONG


@pytest.mark.parametrize(("fusion", "base"), CELLS)
@pytest.mark.parametrize("given", [("ct",), ("ct", "mr"), ("mr",)], ids="+".join)
@torch.no_grad()
def test_at_the_start_a_scan_is_answered_as_by_the_plain_model(
    make: Callable[..., Fused], fusion: str, base: str, given: tuple[Modality, ...]
) -> None:
    ct = field(base)
    scans: dict[Modality, Volume] = {"ct": scan(ct, 0), "mr": scan(turned(ct, 20, 4.0), 1)}
    fused = make(fusion, base)
    lead, calls = given[0], asked(base, ct)
    together = open_together(fused.part(given), {m: scans[m] for m in given}, precision="fp32")
    plain = inference.open(fused.inner, scans[lead], lead, precision="fp32")
    assert together.native == plain.native
    # on the scan's own grid, and on one that is neither scan's
    for grid in (None, turned(ct, 35, 3.1)):
        expected = answers(plain, calls, grid)
        for got, wanted in zip(answers(together, calls, grid), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-3)
        # more than one slice is answered, not the same everywhere, and the second call changes something
        looked = expected[-1] > -9
        assert int(looked.any(dim=0).any(dim=0).sum()) > 3
        assert float(expected[-1][looked].std()) > 0.01
        assert not torch.equal(expected[0], expected[-1])
    for session in (together, plain):
        session.undo()
    torch.testing.assert_close(*(answers(s, [[]])[0] for s in (together, plain)), rtol=0, atol=1e-3)
    fused.release()


def below(grid: Grid, part: float) -> Volume:
    """A scan of the same place that ends at a share of the height."""
    return scan(grid.slab(0, int(part * grid.shape[2])), 1)


@pytest.mark.parametrize("fusion", ["gated", "late"])
@pytest.mark.parametrize("base", ["sam_vit_b", "medsam"])
@torch.no_grad()
def test_trained_a_scan_is_answered_like_the_stack_of_slices_that_it_is(
    make: Callable[..., Fused], fusion: str, base: str
) -> None:
    fused, calls = make(fusion, base), asked(base, CT)
    shake(fused)
    ct, mr = scan(CT, 0), scan(CT, 1)
    # the values of the pictures, which CT's window and MR's percentiles make of these units
    images = [prepare_image(v, m, preprocessing(fused.card, (1, 1, 1))) for m, v in (("ct", ct), ("mr", mr))]
    stack = torch.stack([one.image for one in images], dim=1)
    features = fused.encode(stack, torch.from_numpy(images[0].grid.affine)[None])
    session = open_together(fused, {"ct": ct, "mr": mr}, precision="fp32")
    for got, prompts in zip(answers(session, calls, images[0].grid), calls, strict=True):
        torch.testing.assert_close(got, fused.decode(features, prompts)[0, 0], rtol=0, atol=2e-3)
    alone = answers(open_together(fused.part(["ct"]), {"ct": ct}, precision="fp32"), calls)
    both = answers(open_together(fused, {"ct": ct, "mr": mr}, precision="fp32"), calls)
    assert not torch.allclose(alone[0], both[0], atol=0.01)
    fused.release()


@pytest.mark.parametrize("fusion", ["gated", "late", "early"])
@torch.no_grad()
def test_trained_a_window_around_a_click_is_what_the_fusion_decodes(
    make: Callable[..., Fused], fusion: str
) -> None:
    fused = make(fusion, "sam_med3d_turbo")
    shake(fused)
    (prompts, _), scans = asked("sam_med3d_turbo", LONG), {"ct": scan(LONG, 0), "mr": scan(LONG, 1)}
    fused.inner.windows, before = 1, fused.inner.windows
    images = [prepare_image(v, m, preprocessing(fused.card, (1, 1, 1))) for m, v in scans.items()]
    grid = images[0].grid
    voxel = grid.to_index(np.array([prompts[0].points[0]]))[0].round(3)
    start = tuple(round(float(v)) - 16 for v in voxel)
    place = grid.crop(start, tuple(v + 32 for v in start))
    window = torch.stack([one.image for one in images], dim=1)
    x, y, z = (slice(v, v + 32) for v in start)
    features = fused.encode(window[..., x, y, z], torch.from_numpy(place.affine)[None])
    got = answers(open_together(fused, scans, precision="fp32"), [prompts], place)[0]
    torch.testing.assert_close(got, fused.decode(features, prompts)[0, 0], rtol=0, atol=1e-3)
    alone = answers(
        open_together(fused.part(["ct"]), {"ct": scans["ct"]}, precision="fp32"), [prompts], place
    )
    assert not torch.allclose(alone[0], got, atol=1e-3)
    fused.inner.windows = before
    fused.release()


@pytest.mark.parametrize("fusion", ["gated", "late"])
@pytest.mark.parametrize("base", SLICES)
@torch.no_grad()
def test_on_slices_that_a_scan_does_not_reach_it_is_missing(
    make: Callable[..., Fused], fusion: str, base: str
) -> None:
    fused = make(fusion, base)
    shake(fused)
    scans = {"ct": scan(CT, 0), "mr": below(CT, 0.35)}
    without = fused.part(["ct"])
    # one box on slices 5 to 7, one on slices 0 to 2, which alone the MR reaches
    where = {"beyond": 6, "within": 1}
    for name, number in where.items():
        x, y, z = (float(v) for v in CT.to_world(np.array([[12, 10, number]]))[0])
        box = [[Prompt("liver", "box", box=((x - 9, y - 9, z - 6), (x + 9, y + 9, z + 6)))]]
        both = answers(open_together(fused, scans, precision="fp32"), box)[0]
        alone = answers(open_together(without, {"ct": scans["ct"]}, precision="fp32"), box)[0]
        assert bool((alone[..., number] > -9).any())
        if name == "beyond":
            torch.testing.assert_close(both, alone, rtol=0, atol=0)
        else:
            assert not torch.allclose(both, alone, atol=1e-3)
    fused.release()


@pytest.mark.parametrize("fusion", ["gated", "late", "early"])
@torch.no_grad()
def test_in_windows_that_a_scan_does_not_reach_it_is_missing(models: Any, fusion: str) -> None:
    base = models("unet").eval()
    base.add_structures(["liver", "spleen"])
    options = registry.resolve("fusion", fusion).Options(name=fusion)
    fused = build(options, base, ("ct", "mr"), "ct", ["liver"])
    assert isinstance(fused, Fused)
    fused.eval()
    shake(fused)
    # two windows of 32 voxels of 6 mm, one above the other
    body = Grid((32, 32, 64), np.array([[6.0, 0, 0, -90], [0, 6.0, 0, 10], [0, 0, 6.0, 50], [0, 0, 0, 1]]))
    scans = {"ct": scan(body, 0), "mr": below(body, 0.3)}
    told = {"overlap": 0.0, "precision": "fp32"}
    both = answers(open_together(fused, scans, **told), [[]])[0]
    alone = answers(open_together(fused.part(["ct"]), {"ct": scans["ct"]}, **told), [[]])[0]
    torch.testing.assert_close(both[..., 32:], alone[..., 32:], rtol=0, atol=0)
    assert not torch.allclose(both[..., :32], alone[..., :32], atol=1e-3)
    if fusion == "early":
        # zeros and a missing scan both add a constant, which this network's norm takes out
        return
    # an MR that is there, if only of zeros, is another thing than none
    zeros = Volume(np.zeros(body.shape, dtype=np.float32), body)
    zeros.array[..., : scans["mr"].grid.shape[2]] = scans["mr"].array
    filled = answers(open_together(fused, {**scans, "mr": zeros}, **told), [[]])[0]
    assert not torch.allclose(filled[..., 32:], alone[..., 32:], atol=1e-3)
