"""LoRA and DoRA on convolutions plain peft 0.21 cannot fold, against kernels composed in float64."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

pytest.importorskip("peft")

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from umdseg.adapters.peft import _tensors, _unwrapped
from umdseg.adapters.peft_conv import Conv1d, Conv2d, Conv3d, narrowed
from umdseg.errors import UserError

KINDS: dict[Any, Any] = {nn.Conv1d: Conv1d, nn.Conv2d: Conv2d, nn.Conv3d: Conv3d}
LAYERS = {
    "3x3x3": lambda: nn.Conv3d(4, 6, 3, padding=1),
    "1x1x1": lambda: nn.Conv3d(4, 6, 1),
    "strided": lambda: nn.Conv3d(4, 6, (3, 2, 1), stride=(2, 1, 1), padding=(1, 0, 0), bias=False),
    "grouped": lambda: nn.Conv3d(4, 6, 3, padding=1, groups=2),
    "depthwise 1x1x1": lambda: nn.Conv3d(4, 4, 1, groups=4),
    "dilated": lambda: nn.Conv3d(4, 6, 3, padding=2, dilation=2),
    "mirrored edges": lambda: nn.Conv3d(4, 6, 3, padding=1, padding_mode="reflect"),
}


class Net(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> Any:
        return self.conv(x)


def adapted(conv: Any, dora: bool = False) -> Any:
    config = LoraConfig(r=4, lora_alpha=6, target_modules="conv", use_dora=dora)
    config._register_custom_module(dict(KINDS))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*groups > 1.*")
        net = get_peft_model(Net(conv), config)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1.5)
            elif "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape))
    return net


def direct(conv: Any, layer: Any, dora: bool) -> torch.Tensor:
    """The folded kernel in float64, group by group: scale B_g A_g, and DoRA's magnitudes over norms."""
    a, b = layer.lora_A["default"].weight.detach().double(), layer.lora_B["default"].weight.detach().double()
    rank, outputs = 4 // conv.groups, conv.out_channels // conv.groups
    kernel = conv.weight.detach().double().clone()
    for group in range(conv.groups):
        for o in range(outputs):
            for r in range(rank):
                factor = b[group * outputs + o, r].item()
                kernel[group * outputs + o] += 6 / 4 * factor * a[group * rank + r]
    if dora:
        norms = kernel.flatten(1).norm(dim=1)
        magnitudes = layer.lora_magnitude_vector["default"].weight.detach().double().flatten()
        kernel *= (magnitudes / norms).reshape(-1, 1, 1, 1, 1)
    return torch.as_tensor(kernel)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_folded_kernel_is_the_composed_one_and_answers_alike(kind: str, dora: bool) -> None:
    torch.manual_seed(0)
    conv: Any = LAYERS[kind]()
    net = adapted(conv, dora)
    layer = net.get_base_model().conv
    expected, x = direct(conv, layer, dora), torch.randn(2, 4, 7, 6, 5)
    with torch.no_grad():
        before = net(x)
        plain = _unwrapped(net, fold="default")
        after = plain(x)
    assert plain.get_submodule("conv") is conv
    torch.testing.assert_close(conv.weight.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(before.double(), functional_answer(conv, expected, x), rtol=1e-4, atol=1e-4)


def functional_answer(conv: Any, kernel: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The convolution in float64, padding done apart."""
    x, padding = x.double(), conv.padding
    if conv.padding_mode != "zeros":
        x, padding = functional.pad(x, [p for p in reversed(padding) for _ in (0, 1)], mode="reflect"), 0
    bias = None if conv.bias is None else conv.bias.detach().double()
    return functional.conv3d(x, kernel, bias, conv.stride, padding, conv.dilation, conv.groups)


@pytest.mark.parametrize("dims", [1, 2])
def test_flat_convolutions_fold_too(dims: int) -> None:
    conv = (nn.Conv1d, nn.Conv2d)[dims - 1](4, 6, 1, groups=2)
    net, x = adapted(conv), torch.randn(2, 4, *[5] * dims)
    with torch.no_grad():
        before = net(x)
        torch.testing.assert_close(_unwrapped(net, fold="default")(x), before, rtol=1e-4, atol=1e-5)


def test_outputs_of_one_group_do_not_see_the_others_inputs() -> None:
    net, x = adapted(nn.Conv3d(4, 6, 3, padding=1, groups=2)), torch.randn(1, 4, 5, 5, 5)
    moved = x.clone()
    moved[:, 2:] += 1
    with torch.no_grad():
        assert torch.equal(net(x)[:, :3], net(moved)[:, :3])
        assert not torch.equal(net(x)[:, 3:], net(moved)[:, 3:])


def test_plain_peft_reads_a_grouped_update_as_the_same_function(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = adapted(nn.Conv3d(4, 6, 3, padding=1, groups=2)), torch.randn(1, 4, 5, 5, 5)
    base = {k.replace("base_layer.", ""): v for k, v in net.get_base_model().state_dict().items()}
    net.save_pretrained(str(tmp_path), state_dict=_tensors(net))
    other = Net(nn.Conv3d(4, 6, 3, padding=1, groups=2))
    other.load_state_dict({k: v for k, v in base.items() if "lora" not in k})
    with pytest.warns(UserWarning, match="groups > 1"):
        loaded = PeftModel.from_pretrained(other, str(tmp_path))
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), net(x), rtol=1e-5, atol=1e-5)
    file = tmp_path / "adapter_model.safetensors"
    state = load_file(file)
    key = next(name for name in state if "lora_A" in name)
    assert torch.equal(narrowed(net, state, file)[key], net.get_base_model().conv.lora_A["default"].weight)
    # an update that plain peft trained cannot be one of a grouped kernel
    save_file({**state, key: torch.ones_like(state[key])}, file)
    with pytest.raises(UserError, match="mixes its groups"):
        narrowed(net, load_file(file), file)
