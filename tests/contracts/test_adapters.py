"""Every registered adapter through one battery, with and without a structure the model does not know."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from umdseg import registry
from umdseg.adapters import Adapter, AdapterCard, build, disable, load_adapter, merge, unload
from umdseg.backbones import Backbone, load_backbone
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

PROMPTS = [Prompt("liver"), Prompt("spleen", "point", ((20.0, 20.0, 20.0),), (1,))]
CASES = [(name, new) for name in registry.names("adapter") for new in ((), ("tumour",))]
adapters = pytest.mark.parametrize(
    ("name", "new"), CASES, ids=[f"{n}{'+new' * bool(new)}" for n, new in CASES]
)


def model(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return load_backbone("vista3d_tiny", "random")


def image() -> torch.Tensor:
    return torch.rand(1, 1, 16, 16, 24, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def answer(backbone: Backbone, prompts: list[Prompt] = PROMPTS) -> torch.Tensor:
    return backbone.eval().decode(backbone.encode(image()), prompts)


def adapted(name: str, new: tuple[str, ...]) -> tuple[Backbone, Adapter]:
    backbone = model()
    rows = backbone.add_structures(new) if new else {}
    adapter = build(registry.resolve("adapter", name).Options(name=name))
    adapter.inject(backbone, rows)
    return backbone, adapter


def ask(new: tuple[str, ...]) -> list[Prompt]:
    return [*PROMPTS, *(Prompt(name) for name in new)]


def train(backbone: Backbone, new: tuple[str, ...], steps: int = 2) -> None:
    """Steps with weight decay and momentum, so that anything that can move does."""
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    if not parameters:
        return
    optimizer = torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1)
    backbone.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (backbone.decode(backbone.encode(image()), ask(new)) - 1).square().mean().backward()
        optimizer.step()
    backbone.eval()


@adapters
def test_outputs_at_the_start_are_the_bases(name: str, new: tuple[str, ...]) -> None:
    backbone, _ = adapted(name, new)
    assert torch.equal(answer(backbone), answer(model()))


@adapters
def test_training_moves_only_what_the_adapter_promises(name: str, new: tuple[str, ...]) -> None:
    backbone, adapter = adapted(name, new)
    trained, total = adapter.parameters(backbone)
    base = {key: value.numel() for key, value in model().net.named_parameters()}
    width = model().net.class_head.class_embeddings.embedding_dim
    assert total == sum(base.values())
    # counted by hand: A is (r, in, 3, 3, 3), B is (out, r, 1, 1, 1), a new structure is one row
    convolutions = [
        m
        for k, m in model().net.named_modules()
        if k.endswith(("conv1", "conv2", "conv1.conv", "conv2.conv"))
    ]
    widths = [m.in_channels for m in convolutions if isinstance(m, torch.nn.Conv3d)]
    lora = sum(8 * 27 * w + 8 * w for w in widths)
    expected = {"none": 0, "lora": lora, "full": total}[name] + (width * len(new) if name != "full" else 0)
    assert trained == expected
    before = answer(backbone, ask(new))
    train(backbone, new)
    with_gradient = sum(p.numel() for p in backbone.parameters() if p.grad is not None)
    assert with_gradient <= trained
    assert torch.equal(before, answer(backbone, ask(new))) == (trained == 0)


@adapters
def test_the_base_stays_bit_for_bit(name: str, new: tuple[str, ...]) -> None:
    plain = model()
    state = {key: value.clone() for key, value in plain.net.state_dict().items()}
    expected = answer(plain)
    backbone, _ = adapted(name, new)
    train(backbone, new)
    tuned = answer(backbone, ask(new))
    with disable(backbone):
        assert torch.equal(answer(backbone), expected)
        assert not backbone.knows("tumour")
    assert torch.equal(answer(backbone, ask(new)), tuned)
    unload(backbone)
    after = backbone.net.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[key], state[key]) for key in state)
    assert backbone.adapter is None


@adapters
def test_only_the_new_class_row_moves(name: str, new: tuple[str, ...]) -> None:
    if name == "full" or not new:
        pytest.skip("full tuning may move every row; without new structures there is no row")
    backbone, _ = adapted(name, new)
    rows = backbone.net.class_head.class_embeddings
    before = rows(torch.arange(512)).detach().clone()
    train(backbone, new)
    moved = (rows(torch.arange(512)) != before).any(dim=1)
    assert moved.nonzero().flatten().tolist() == [256]


@adapters
def test_saved_loaded_and_merged_adapters_answer_alike(
    name: str, new: tuple[str, ...], tmp_path: Path
) -> None:
    backbone, adapter = adapted(name, new)
    train(backbone, new)
    expected = answer(backbone, ask(new))
    card = AdapterCard.describe(backbone, ["liver", *new], ["pet", "mr"])
    for _ in range(2):  # the second time replaces the first
        adapter.save(tmp_path / "adapter", backbone, card)
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]

    fresh = model()
    read = load_adapter(tmp_path / "adapter", fresh)
    assert read == card
    assert read.method == name
    assert read.new_structures == dict.fromkeys(new, 256)
    assert torch.equal(answer(fresh, ask(new)), expected)
    assert fresh.adapter.parameters(fresh) == adapter.parameters(backbone)

    merge(fresh)
    torch.testing.assert_close(answer(fresh, ask(new)), expected, rtol=0, atol=1e-4)
    assert fresh.net.state_dict().keys() == model().net.state_dict().keys()
    assert fresh.adapter is None
    assert not any(p.requires_grad for p in fresh.parameters())


@adapters
def test_another_base_is_refused_naming_both(name: str, new: tuple[str, ...], tmp_path: Path) -> None:
    backbone, adapter = adapted(name, new)
    adapter.save(tmp_path / "a", backbone, AdapterCard.describe(backbone))
    other = model(seed=1)
    before = answer(other)
    with pytest.raises(UserError) as caught:
        load_adapter(tmp_path / "a", other)
    assert str(backbone.state_sha256) in str(caught.value)
    assert str(other.state_sha256) in str(caught.value)
    assert torch.equal(answer(other), before)


@adapters
def test_damaged_weights_are_refused_by_name(name: str, new: tuple[str, ...], tmp_path: Path) -> None:
    backbone, adapter = adapted(name, new)
    adapter.save(tmp_path / "a", backbone, AdapterCard.describe(backbone))
    files = list((tmp_path / "a").glob("*.safetensors"))
    if not files:
        pytest.skip("nothing but the card is saved")
    content = files[0].read_bytes()
    files[0].write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=files[0].name):
        load_adapter(tmp_path / "a", model())
    files[0].unlink()
    with pytest.raises(UserError, match=files[0].name):
        load_adapter(tmp_path / "a", model())
