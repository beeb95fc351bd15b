"""U-Nets from scratch: they know nothing, and learn what they are shown."""

from __future__ import annotations

import pytest
import torch

from umdseg import load_backbone
from umdseg.adapters import AdapterCard, build, disable, load_adapter
from umdseg.adapters.full import FullOptions
from umdseg.backbones.monai_cnn.scratch import UnetOptions, unet_card
from umdseg.errors import UserError
from umdseg.tasks.loss import dice_ce
from umdseg.vocabulary import Prompt

ASKED = [Prompt("liver"), Prompt("spleen")]


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """A bright and a dark box in grey noise, and where they are."""
    x = 0.5 + 0.05 * torch.randn(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(1, 2, 24, 24, 24)
    target[0, 0, 3:12, 4:15, 6:16] = 1
    target[0, 1, 14:21, 8:18, 4:20] = 1
    return x + 0.4 * target[:, :1] - 0.4 * target[:, 1:], target


@pytest.mark.parametrize("name", ["unet", "resenc_unet"])
def test_it_learns_and_comes_back_from_its_folder(small, name: str, tmp_path) -> None:
    model = small(name, width=8)
    assert model.random_weights
    assert not model.knows("liver")
    rows = model.add_structures(["liver", "spleen"])
    assert rows == {"liver": 1, "spleen": 2}
    adapter = build(FullOptions())
    adapter.inject(model, rows)
    x, target = scene()
    before = dice_of(model, x, target)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(35):
        optimizer.zero_grad()
        dice_ce(model.decode(model.encode(x), ASKED), target).backward()
        optimizer.step()
    model.eval()
    assert dice_of(model, x, target) > 0.9 > before
    with disable(model):
        assert not model.knows("liver")
        assert model.dense(model.encode(x)).shape[1] == 1

    adapter.save(tmp_path / "adapter", model, AdapterCard.describe(model, ["liver", "spleen"]))
    again = small(name, width=8)
    load_adapter(tmp_path / "adapter", again)
    assert torch.equal(again.decode(again.encode(x), ASKED), model.decode(model.encode(x), ASKED))


@torch.no_grad()
def dice_of(model, x: torch.Tensor, target: torch.Tensor) -> float:
    found = model.dense(model.encode(x)).argmax(dim=1)
    maps = torch.stack([found == 1, found == 2], dim=1)
    return float(2 * (maps * target).sum() / (maps.sum() + target.sum()))


def test_its_size_follows_the_options(small) -> None:
    model = small("unet", width=6, max_width=10, levels=4, window=(32, 32, 64))
    assert [m.shape[1] for m in model.encode(torch.rand(1, 1, 32, 32, 64)).maps] == [6, 10, 10, 10]
    assert model.card.divisor == 8
    assert model.card.spacing == (6.0, 6.0, 6.0)
    # nnU-Net's default 3d_fullres sizes (Isensee et al. 2021, supplement)
    assert UnetOptions().widths == [32, 64, 128, 256, 320, 320]


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"levels": 2}, "model.levels"),
        ({"width": 0}, "model.width"),
        ({"width": 400}, "model.width"),
        ({"window": (32, 32, 30)}, "model.window"),
        ({"spacing": (1.0, 0.0, 1.0)}, "model.spacing"),
    ],
)
def test_sizes_that_make_no_network_are_refused_by_name(small, wrong: dict, where: str) -> None:
    with pytest.raises(UserError) as caught:
        small("unet", **wrong)
    assert caught.value.where == where


def test_the_same_seed_gives_the_same_start_and_another_one_another() -> None:
    sizes = {"width": 4, "levels": 3, "window": (32, 32, 32)}
    torch.manual_seed(3)
    first = load_backbone("unet", **sizes).state_sha256
    assert load_backbone("unet", "random", **sizes).state_sha256 == first
    torch.manual_seed(4)
    assert load_backbone("unet", **sizes).state_sha256 != first


def test_nothing_is_published() -> None:
    assert unet_card(UnetOptions()).weights.source is None
    assert not unet_card(UnetOptions()).structures
