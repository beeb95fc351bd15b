"""Adapters across the slices of SAM: who sees whom, in patches and in whole scans, whatever is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from umdseg import adapters, inference, load_backbone
from umdseg.adapters.across import AcrossByAttention, AcrossByConv
from umdseg.adapters.depth import Depth, DepthOptions
from umdseg.backbones.base import BACKGROUND
from umdseg.backbones.sam2d import networks
from umdseg.backbones.sam2d.backbone import Sam2d
from umdseg.backbones.sam2d.groups import Groups
from umdseg.backbones.sam2d.kept import Kept
from umdseg.backbones.sam2d.stack import Stack
from umdseg.data.geometry import Grid, Volume
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

VISION = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64,
    "window_size": 3, "global_attn_indexes": [1], "output_channels": 32, "num_pos_feats": 16,
}  # fmt: skip
DECODER = {"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32}
kinds = pytest.mark.parametrize("kind", ["conv", "attention"])


@contextmanager
def small() -> Iterator[None]:
    sam = networks.sam
    with pytest.MonkeyPatch.context() as patch:
        prompts = {"hidden_size": 32, "image_size": 64}
        patch.setattr(
            networks, "sam", lambda _: sam(VISION, prompt_encoder_config=prompts, mask_decoder_config=DECODER)
        )
        yield


def plain() -> Sam2d:
    """SAM 24 wide with 2 blocks; weights large enough that everything matters (SAM starts at nearly 0)."""
    with small():
        backbone = load_backbone("sam_vit_b", "random")
    assert isinstance(backbone, Sam2d)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))
    return backbone.eval()


def deep(kind: str, moved: bool = True, **options: int) -> Sam2d:
    backbone = plain()
    Depth(DepthOptions(kind=kind, **options)).inject(backbone)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad and moved:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return backbone


def image(slices: int, seed: int = 0) -> torch.Tensor:
    return 255 * torch.rand(1, 1, 20, 24, slices, generator=torch.Generator().manual_seed(seed))


def lps(slices: int) -> Grid:
    """Where `encode` takes its input to be when it is not told: 1 mm, columns to the left, rows backwards."""
    return Grid((20, 24, slices), np.diag([-1.0, -1.0, 1.0, 1.0]))


@torch.no_grad()
def maps(backbone: Sam2d, picture: torch.Tensor) -> torch.Tensor:
    return backbone.encode(picture).maps[0]


@kinds
def test_it_starts_as_the_base_and_the_base_stays_slice_by_slice(kind: str) -> None:
    x = image(9)
    assert torch.equal(maps(deep(kind, moved=False, slices=9), x), maps(plain(), x))
    backbone = deep(kind)
    assert not torch.equal(maps(backbone, x), maps(plain(), x))
    with adapters.disable(backbone):
        assert torch.equal(maps(backbone, x), maps(plain(), x))
    adapters.unload(backbone)
    assert torch.equal(maps(backbone, x), maps(plain(), x))
    assert backbone.training_window == (512, 512, 1)


@pytest.mark.parametrize(("kind", "sees"), [("conv", [0, 1, 2, 3, 4]), ("attention", [0, 1, 2, 3, 4, 5, 6])])
def test_a_slice_sees_its_group(kind: str, sees: list[int]) -> None:
    """Two blocks with a convolution over three slices reach two slices far; attention the whole group."""
    backbone, x = deep(kind, slices=7), image(7)
    before = maps(backbone, x)
    y = x.clone()
    y[..., 2] = 255 - y[..., 2]
    changed = (maps(backbone, y) - before).abs().amax(dim=(0, 1, 2, 3))
    # beyond, only the rounding of a batch may differ
    assert [z for z in range(7) if changed[z] > 1e-3] == sees


@kinds
def test_stacks_of_a_batch_do_not_see_each_other(kind: str) -> None:
    backbone, first, second = deep(kind), image(4, 1), image(4, 2)
    both = maps(backbone, torch.cat([first, second]))
    torch.testing.assert_close(both, torch.cat([maps(backbone, first), maps(backbone, second)]))


@kinds
@pytest.mark.parametrize("slices", [3, 5, 12])
def test_whole_scans_are_as_patches_whatever_is_kept_and_asked_first(kind: str, slices: int) -> None:
    backbone, x = deep(kind, slices=5, margin=1), image(slices)
    want = maps(backbone, x)
    numbers = (x[0, 0] + 1e-3).to(torch.uint8)
    grid = lps(slices)
    order = torch.randperm(slices, generator=torch.Generator().manual_seed(3)).tolist()
    found = []
    # everything is kept; nothing but the last group is
    for limit in (1 << 30, 0):
        stack = Stack(backbone, numbers, grid, Kept(limit))
        with torch.no_grad():
            got = {z: stack.embedding(z)[0] for z in order}
        assert all(got[z].shape == (1, *got[0].shape[1:]) for z in order)
        found.append(torch.cat([got[z] for z in range(slices)]))
        torch.testing.assert_close(found[-1], want[0].permute(3, 0, 2, 1), rtol=1e-4, atol=1e-4)
    assert torch.equal(*found)


@kinds
def test_a_prompted_scan_and_its_first_patch_agree(kind: str) -> None:
    """The volume session and `decode` on one stack that is a single group."""
    backbone = deep(kind, slices=5)
    x = image(5)
    click = Prompt("liver", "point", ((-12.0, -10.0, 2.0),), (1,))
    with torch.no_grad():
        patch = backbone.decode(backbone.encode(x), [click])[0, 0]
    # the card's window for CT, backwards: -160 to 240 HU become 0 to 255
    volume = Volume((x[0, 0].floor() * 400 / 255 - 160).numpy(), lps(5))
    scan = inference.open(backbone, volume, "ct", precision="fp32")
    scan.prompt([click])
    got = torch.cat([part for _, part in scan.scores(["liver"])], dim=-1)[0]
    asked = (patch > BACKGROUND).any(dim=(0, 1))
    assert asked[2]
    torch.testing.assert_close(got[..., asked], patch[..., asked], rtol=1e-3, atol=1e-3)


def test_mixing_by_attention_is_softmax_over_slices_with_a_bias_by_distance() -> None:
    branch = AcrossByAttention(6, 4, Groups(), 5).double()
    torch.nn.init.normal_(branch.distance)
    x = torch.randn(2, 3, 7, 4, dtype=torch.float64)
    got = branch.mix(x)
    q, k, v = (x @ branch.qkv.weight.T + branch.qkv.bias).split(4, dim=-1)
    for b, i, p in ((0, 0, 0), (1, 2, 6), (0, 1, 3)):
        logits = torch.stack([q[b, i, p] @ k[b, j, p] / 2 + branch.distance[j - i + 4] for j in range(3)])
        torch.testing.assert_close(got[b, i, p], torch.softmax(logits, 0) @ v[b, :, p])


def test_mixing_by_convolution_is_a_sum_over_neighbours() -> None:
    branch = AcrossByConv(6, 4, Groups()).double()
    x = torch.randn(2, 3, 7, 4, dtype=torch.float64)
    weight, bias = branch.conv.weight, branch.conv.bias
    got = branch.mix(x)
    torch.testing.assert_close(got[0, 0, 5], weight[..., 1] @ x[0, 0, 5] + weight[..., 2] @ x[0, 1, 5] + bias)
    middle = sum(weight[..., t] @ x[1, t, 2] for t in range(3))
    torch.testing.assert_close(got[1, 1, 2], middle + bias)


@kinds
def test_training_patches_have_the_slices_and_every_tensor_learns(kind: str) -> None:
    backbone = deep(kind, moved=False, slices=3)
    assert backbone.training_window == (512, 512, 3)
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.1)
    click = Prompt("liver", "point", ((-12.0, -10.0, 1.0),), (1,))
    backbone.train()
    for _ in range(2):
        optimizer.zero_grad()
        backbone.decode(backbone.encode(image(3)), [click]).square().mean().backward()
        optimizer.step()
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.any()] == []


def test_with_one_adapter_per_modality_the_others_stay_slice_by_slice() -> None:
    backbone = plain()
    Depth(DepthOptions(per="modality")).inject(backbone, {}, ["pet", "mr"])
    assert backbone.training_window[2] == 5
    for name, together in (("ct", False), ("pet", True), ("mr", True)):
        with backbone.routed(name):
            assert backbone.groups.together is together
    assert not backbone.groups.together


def test_what_cannot_be_is_refused() -> None:
    for given in ({"slices": 2, "margin": 1}, {"margin": -1}, {"slices": 0, "margin": 0}):
        with pytest.raises(UserError, match=r"adapter\.slices"):
            Depth(DepthOptions(**given)).inject(plain())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="did you mean: conv"):
        Depth(DepthOptions(kind="convolution")).inject(plain())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="slices"):
        Depth(DepthOptions()).inject(load_backbone("vista3d_tiny", "random"))
    with pytest.raises(UserError, match="across"):
        adapters.merge(deep("conv"))
