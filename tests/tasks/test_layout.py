"""Channels-last weights: the same values, and the same answers up to rounding."""

from __future__ import annotations

import torch
from torch import nn

from umdseg.tasks.layout import channels_first, channels_last


def test_values_and_results_stay_and_the_convolution_changes_its_order() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.InstanceNorm3d(8), nn.Conv3d(8, 2, 1))
    image = torch.randn(2, 3, 6, 5, 7)
    before, state = net(image), {key: value.clone() for key, value in net.state_dict().items()}
    channels_last(net)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    after = net(image)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    after.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    channels_first(net)
    # as safetensors wants them
    assert all(p.is_contiguous() for p in net.parameters())
