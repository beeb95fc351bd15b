"""Prompt tuning and class rows: only the rows that were asked for move."""

from __future__ import annotations

import pytest
import torch

from umdseg import load_backbone
from umdseg.adapters import disable, unload
from umdseg.adapters.prompt import PromptOptions, PromptTuning
from umdseg.adapters.rows import Rows
from umdseg.backbones import Backbone
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

CLICK = Prompt("spleen", "point", ((20.0, 20.0, 20.0),), (1,))


def model() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("vista3d_tiny", "random").eval()


def train(backbone: Backbone, asked: list[Prompt]) -> None:
    optimizer = torch.optim.AdamW(
        [p for p in backbone.parameters() if p.requires_grad], 0.05, weight_decay=0.1
    )
    image = torch.rand(1, 1, 16, 16, 24, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        optimizer.zero_grad()
        (backbone.decode(backbone.encode(image), asked) - 1).square().mean().backward()
        optimizer.step()


def rows_of(backbone: Backbone) -> torch.Tensor:
    found: torch.Tensor = backbone.net.class_head.class_embeddings.weight
    return found.detach().clone()


@pytest.mark.parametrize("structures", [None, ["liver", "spleen", "lung"]])
def test_rows_move_only_when_asked_for(structures: list[str] | None) -> None:
    backbone = model()
    names = {n for s in structures or backbone.card.structures for n in backbone.card.members(s)}
    adapter = PromptTuning(PromptOptions(structures=structures))
    adapter.inject(backbone)
    # rows, and of clicks: two signs, the special one, the two that say whether the class is supported
    assert adapter.parameters(backbone)[0] == (len(names) + 5) * 16
    before = rows_of(backbone)
    train(backbone, [Prompt("liver"), CLICK])
    moved = (rows_of(backbone) != before).any(dim=1)
    assert moved.nonzero().flatten().tolist() == [backbone.card.index("liver")]


def test_learned_rows_join_and_leave() -> None:
    backbone = model()
    rows = backbone.add_structures(["tumour"])
    start = rows_of(backbone)
    adapter = PromptTuning(PromptOptions(structures=["liver", "tumour"]))
    adapter.inject(backbone, rows)
    train(backbone, [Prompt("tumour")])
    moved = (rows_of(backbone) != start).any(dim=1)
    assert moved.nonzero().flatten().tolist() == [rows["tumour"]]
    with disable(backbone):
        assert torch.equal(rows_of(backbone), start)
    unload(backbone)
    assert torch.equal(rows_of(backbone), rows_of(model()))


def test_unknown_structures_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="liver"):
        PromptTuning(PromptOptions(structures=["livr"])).inject(model())


def test_models_of_fixed_classes_are_refused() -> None:
    small = {"width": 4, "levels": 3, "spacing": [6.0, 6.0, 6.0], "window": [32, 32, 32]}
    with pytest.raises(UserError, match="prompt"):
        PromptTuning(PromptOptions()).inject(load_backbone("unet", "random", **small))


@pytest.mark.parametrize("added", [True, False])
def test_tables_are_read_alike_as_a_module_and_as_a_tensor(added: bool) -> None:
    table = torch.nn.Embedding(6, 3).requires_grad_(False)
    own = table.weight
    base = own.detach().clone()
    piece = Rows(table, [1, 4], 2, added)
    piece.attach()
    with torch.no_grad():
        for number in range(2):
            piece.sets[number].value.copy_(torch.full((2, 3), 7.0 + number))
    assert torch.equal(table.weight, base)
    piece.active = 1
    want = base.clone()
    want[[1, 4]] = 8.0 + (base[[1, 4]] if added else 0.0)
    assert torch.equal(table.weight, want)
    assert torch.equal(table(torch.arange(6)), want)
    table(torch.tensor([4, 2])).sum().backward()
    assert piece.sets[0].value.grad is None
    assert piece.sets[1].value.grad.tolist() == [[0.0] * 3, [1.0] * 3]
    piece.detach()
    assert table.weight is own
    assert torch.equal(own, base)
