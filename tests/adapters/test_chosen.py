"""BitFit, norm and head tuning: which tensors, what moves, and that the base does not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from umdseg import load_backbone
from umdseg.adapters import Adapter, disable, merge, unload
from umdseg.adapters.bitfit import BitFit, BitFitOptions
from umdseg.adapters.head import HeadOptions, HeadTuning
from umdseg.adapters.norm import NormOptions, NormTuning
from umdseg.backbones import Backbone
from umdseg.backbones.card import Card, Intensity, Weights
from umdseg.backbones.torch_module.backbone import TorchModule
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt


class Net(nn.Module):
    """One convolution shared by two places, a batch norm with statistics, a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, padding=1)
        self.inner = nn.Conv3d(4, 4, 1)
        # the same tensor in another module, and the same module under another name
        self.tied = nn.Conv3d(4, 4, 1, bias=False)
        self.tied.bias = self.inner.bias
        self.again = self.inner
        self.norm = nn.BatchNorm3d(4)
        self.idle = nn.Conv3d(4, 4, 1)
        self.last = nn.Conv3d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.tied(self.again(torch.relu(self.first(x)))))
        out: torch.Tensor = self.last(torch.relu(x))
        return out


def model() -> Backbone:
    torch.manual_seed(0)
    card = Card(
        name="mine", weights=Weights(None, "", None, "mine", None), spacing=(2.0, 2.0, 2.0),
        window=(8, 8, 8), divisor=1, intensity={"ct": Intensity("as_is")}, structures={"liver": 1},
        adapter_targets="first|inner", stem="first", citation="", output="softmax", head="last",
    )  # fmt: skip
    return TorchModule(card, Net()).eval()


def image() -> torch.Tensor:
    return torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))


def answer(backbone: Backbone) -> torch.Tensor:
    with torch.no_grad():
        return backbone.eval().decode(backbone.encode(image()), [Prompt("liver")])


def train(backbone: Backbone) -> None:
    optimizer = torch.optim.AdamW(
        [p for p in backbone.parameters() if p.requires_grad], 0.05, weight_decay=0.1
    )
    backbone.train()
    for _ in range(3):
        optimizer.zero_grad()
        (backbone.decode(backbone.encode(image()), [Prompt("liver")]) - 1).square().mean().backward()
        optimizer.step()
    backbone.eval()


METHODS: dict[str, tuple[Adapter, set[str]]] = {
    "bitfit": (BitFit(BitFitOptions()), {"first.bias", "inner.bias", "norm.bias", "idle.bias", "last.bias"}),
    "bitfit of some": (BitFit(BitFitOptions(targets="first|last")), {"first.bias", "last.bias"}),
    "norm": (NormTuning(NormOptions()), {"norm.weight", "norm.bias"}),
    "head": (HeadTuning(HeadOptions()), {"last.weight", "last.bias"}),
    "head, named": (HeadTuning(HeadOptions(targets="again")), {"inner.weight", "inner.bias"}),
}


@pytest.mark.parametrize("name", METHODS)
def test_only_the_chosen_move_and_the_base_comes_back(name: str) -> None:
    adapter, chosen = copy.deepcopy(METHODS[name])
    backbone = model()
    state = {key: value.clone() for key, value in backbone.net.state_dict().items()}
    before = dict(backbone.net.named_parameters())
    base = answer(backbone)
    adapter.inject(backbone)
    assert torch.equal(answer(backbone), base)
    assert adapter.parameters(backbone)[0] == sum(before[key].numel() for key in chosen)
    train(backbone)
    tuned = answer(backbone)
    assert not torch.equal(tuned, base)
    with disable(backbone):
        assert torch.equal(answer(backbone), base)
    merged = copy.deepcopy(backbone)
    unload(backbone)
    # the very same tensors, running statistics of the batch norm included
    assert all(parameter is before[key] for key, parameter in backbone.net.named_parameters())
    assert all(torch.equal(value, state[key]) for key, value in backbone.net.state_dict().items())
    merge(merged)
    assert torch.equal(answer(merged), tuned)
    moved = {key for key, value in merged.net.named_parameters() if not torch.equal(value, state[key])}
    # what never ran has no gradient, and weight decay does not move it either
    assert moved == chosen - {"idle.bias"}
    assert merged.net.tied.bias is merged.net.inner.bias


def test_weight_decay_pulls_to_the_base() -> None:
    backbone = model()
    NormTuning(NormOptions()).inject(backbone)
    scale = backbone.net.norm.weight.detach().clone()
    trained = [p for p in backbone.parameters() if p.requires_grad]
    with torch.no_grad():
        trained[0].fill_(0.5)
    optimizer = torch.optim.SGD(trained, lr=1.0, weight_decay=0.5)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(backbone.net.norm.weight.detach(), scale + 0.25)


@pytest.mark.parametrize(
    ("model", "count"),
    # two norms a block, scale and shift: encoder, two decoders, and nine layer norms of the point branch
    [("vista3d_tiny", 4 * (16 + 32 + 64 + 128) + 2 * 4 * (64 + 32 + 16) + 2 * 9 * 16)],
)
def test_norms_of_the_official_network(model: str, count: int) -> None:
    backbone = load_backbone(model, "random")
    adapter = NormTuning(NormOptions())
    adapter.inject(backbone)
    assert adapter.parameters(backbone)[0] == count


def test_what_is_not_there_is_refused_by_name() -> None:
    for adapter, what in (
        (BitFit(BitFitOptions(targets="tied_")), "biases"),
        (NormTuning(NormOptions(targets="first")), "normalisation"),
        (HeadTuning(HeadOptions(targets="nowhere")), "last layer"),
    ):
        with pytest.raises(UserError, match=what):
            adapter.inject(model())
    with pytest.raises(UserError, match="regular expression"):
        BitFit(BitFitOptions(targets="(")).inject(model())
