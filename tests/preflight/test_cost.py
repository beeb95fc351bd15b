"""Counted costs against arithmetic, and against memory that was really used."""

from __future__ import annotations

import torch

from umdseg import adapters
from umdseg.adapters.lora import Lora
from umdseg.backbones import load_backbone
from umdseg.preflight.cost import Ledger, inference_cost, training_cost

MB = 1 << 20


def test_a_ledger_knows_the_most_bytes_alive_at_once() -> None:
    with Ledger() as ledger:
        a = torch.empty(MB, device="meta")  # 4 MB
        b = a + 1  # 8 MB
        del a
        c = b * 2  # 8 MB again: a is gone
        view = c.view(2, -1)[0]
        del b, c
    assert ledger.peak == 8 * MB
    assert ledger.made == 12 * MB, "the view made nothing"
    assert ledger.now == 4 * MB, "a view keeps its storage"
    del view
    assert ledger.now == 0


def test_activations_wait_for_the_backward_pass() -> None:
    layers = torch.nn.Sequential(*[torch.nn.ReLU() for _ in range(5)]).to("meta")
    x = torch.empty(MB, device="meta", requires_grad=True)
    with Ledger() as with_gradients:
        layers(x)
    with Ledger() as without, torch.no_grad():
        layers(x)
    # every ReLU keeps its output for the backward pass; without one, two are alive at a time
    assert (with_gradients.peak, without.peak) == (20 * MB, 8 * MB)


def test_the_heaviest_convolution_is_found() -> None:
    net = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.Conv3d(4, 8, 3, stride=2)).to(
        "meta"
    )
    with Ledger() as ledger:
        net(torch.empty(1, 1, 9, 9, 9, device="meta"))
    assert ledger.heaviest is not None
    # 9^3 x 4 outputs of 27 products against 4^3 x 8 outputs of 108
    assert ledger.heaviest.work == max(9**3 * 4 * 27, 4**3 * 8 * 108)
    assert ledger.heaviest.weight == (4, 1, 3, 3, 3)


def test_counting_on_the_meta_device_equals_counting_real_tensors(monkeypatch) -> None:
    from umdseg.preflight import cost

    monkeypatch.setattr(cost, "_window", lambda b, n: torch.rand(n, 1, 24, 16, 16, device=_device(b)))
    backbone = load_backbone("vista3d_tiny", "random")
    adapters.build(Lora.Options(name="lora")).inject(backbone, {})
    names = ["liver", "spleen"]
    real = training_cost(backbone.train(), names, 2), inference_cost(backbone.eval(), names)
    backbone.to("meta")
    counted = training_cost(backbone.train(), names, 2), inference_cost(backbone.eval(), names)
    for a, b in zip(real, counted, strict=True):
        assert a.flops == b.flops > 0
        # gradients are kept by the real parameters after the first step only
        assert abs(a.peak_bytes - b.peak_bytes) <= 0.1 * a.peak_bytes
    assert counted[0].flops > 2 * 2 * counted[1].flops / 2, "two samples, and backward on top"


def _device(backbone) -> torch.device:
    return next(backbone.parameters()).device
