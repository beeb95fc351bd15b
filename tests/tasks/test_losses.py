"""Losses against MONAI's and against closed forms; classes that compete, and labels that tell only a part."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss, TverskyLoss
from monai.losses.focal_loss import FocalLoss

from umdseg.adapters.full import FullTuning
from umdseg.errors import UserError
from umdseg.tasks import FitOptions, SegmentTask
from umdseg.tasks.competing import competing_logits
from umdseg.tasks.loss import competing_loss, prompt_loss
from umdseg.vocabulary import Batch

SMOOTH = {"smooth_nr": 1.0, "smooth_dr": 1.0, "batch": True}


def binary() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 3, 5, 6, 7), (torch.rand(2, 3, 5, 6, 7) > 0.7).float()


def classes() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (B, 1 + K, ...), index (B, 1, ...) and one-hot target (B, K, ...)."""
    torch.manual_seed(2)
    index = torch.randint(0, 4, (2, 1, 5, 6, 7))
    target = torch.cat([index == k for k in (1, 2, 3)], dim=1)
    return torch.randn(2, 4, 5, 6, 7), index, target


def test_prompts_with_focal_loss_are_monais() -> None:
    logits, target = binary()
    dice = DiceLoss(sigmoid=True, squared_pred=True, smooth_nr=1.0, smooth_dr=1.0, batch=True)
    expected = dice(logits, target) + 3.0 * FocalLoss(gamma=2.0)(logits, target)
    got = prompt_loss(logits, target, FitOptions(loss="dice_focal", ce_weight=3.0))
    assert float(got) == pytest.approx(float(expected), abs=1e-5)


def test_tversky_is_monais() -> None:
    logits, target = binary()
    tversky = TverskyLoss(sigmoid=True, alpha=0.2, beta=0.8, **SMOOTH)
    got = prompt_loss(logits, target, FitOptions(loss="tversky", ce_weight=0.0, tversky_beta=0.8))
    assert float(got) == pytest.approx(float(tversky(logits, target)), abs=1e-5)


def test_competing_classes_get_monais_softmax_loss() -> None:
    logits, index, target = classes()
    options = {"softmax": True, "to_onehot_y": True, "include_background": False, "squared_pred": True}
    monai = DiceCELoss(**options, **SMOOTH, lambda_ce=0.0)(logits, index)
    entropy = torch.nn.functional.cross_entropy(logits.double(), index[:, 0])
    got = competing_loss(logits, target, FitOptions(ce_weight=2.0))
    assert float(got) == pytest.approx(float(monai + 2 * entropy), abs=1e-5)


def test_focal_of_competing_classes_is_its_formula() -> None:
    logits, index, target = classes()
    p = logits.double().softmax(1).gather(1, index)
    plain, focal = (competing_loss(logits, target, FitOptions(loss=loss, ce_weight=1.0))
                    for loss in ("dice_ce", "dice_focal"))  # fmt: skip
    expected = ((1 - p) ** 2 * -p.log()).mean() - (-p.log()).mean()
    assert float(focal - plain) == pytest.approx(float(expected), abs=1e-5)


def test_a_class_nobody_annotated_is_background_and_cannot_be_told_apart() -> None:
    """Two samples that differ only in how the mass is shared between background and an unannotated class."""
    logits, _, target = classes()
    told = torch.tensor([[True, False, True]] * 2)
    target[:, 1] = False
    whole = torch.logsumexp(logits[:, [0, 2]], 1)
    merged = torch.stack([whole, logits[:, 1], logits[:, 3]], 1)
    expected = competing_loss(merged, target[:, [0, 2]], FitOptions())
    logits.requires_grad_()
    got = competing_loss(logits, target, FitOptions(), told)
    assert got.item() == pytest.approx(float(expected), abs=1e-5)
    got.backward()
    assert torch.isfinite(logits.grad).all()
    # moving mass between the two changes nothing
    share = logits.detach().softmax(1)[:, [0, 2]]
    torch.testing.assert_close(
        logits.grad[:, 0] * share[:, 1], logits.grad[:, 2] * share[:, 0], rtol=1e-3, atol=1e-8
    )


@pytest.mark.parametrize("loss", ["dice_ce", "dice_focal", "tversky"])
def test_what_is_not_annotated_does_not_count(loss: str) -> None:
    logits, target = binary()
    told = torch.tensor([[True, True, False], [True, False, False]])
    before = prompt_loss(logits, target, FitOptions(loss=loss), told)
    logits[1, 1], target[0, 2] = 50.0, 1 - target[0, 2]
    assert float(prompt_loss(logits, target, FitOptions(loss=loss), told)) == pytest.approx(float(before))


class Card(SimpleNamespace):
    def members(self, name: str) -> tuple[str, ...]:
        return self.groups.get(name, (name,))


def net() -> SimpleNamespace:
    structures = {"liver": 1, "kidney_left": 2, "kidney_right": 3, "rib": 4}
    card = Card(name="net", groups={"kidneys": ("kidney_left", "kidney_right")})
    return SimpleNamespace(card=card, index=structures.__getitem__)


def test_structures_add_up_the_networks_classes_and_the_rest_is_background() -> None:
    dense = torch.randn(1, 5, 3, 3, 3)
    p = dense.softmax(1)
    got = competing_logits(net(), dense, ["kidneys", "liver"]).softmax(1)
    expected = torch.stack([p[:, 0] + p[:, 4], p[:, 2] + p[:, 3], p[:, 1]], 1)
    torch.testing.assert_close(got, expected)
    # one kidney asked for itself: the group keeps the other
    got = competing_logits(net(), dense, ["kidneys", "kidney_left"]).softmax(1)
    torch.testing.assert_close(got[:, 1], p[:, 3])
    with pytest.raises(UserError, match="same classes for 'kidneys'"):
        competing_logits(net(), dense, ["kidneys", "kidney_left", "kidney_right"])


@pytest.mark.parametrize("name", ["nnunet", "ctfm_wholebody"])
def test_softmax_models_are_fitted_with_competing_classes(narrow, name: str) -> None:
    """The step's loss is MONAI's on probabilities added up by hand."""
    backbone = narrow(name)
    names = ("liver", "spleen")
    adapter = FullTuning(FullTuning.Options(name="full"))
    adapter.inject(backbone)
    edge = 2 * max(backbone.card.divisor, 8)
    image = torch.rand(1, 1, edge, edge, edge)
    label = torch.zeros(1, 1, edge, edge, edge, dtype=torch.int16)
    label[..., :4], label[..., 6:9] = 1, 2
    batch = Batch(image, label, torch.eye(4)[None], ["ct"], ["a"], [], names)
    task = SegmentTask(backbone, adapter, FitOptions(point_share=0.0, ce_weight=1.0), names)
    backbone.eval()
    loss = task._step(batch, 0)
    with torch.no_grad():
        p = backbone.dense(backbone.encode(image)).softmax(1)
    own = [backbone.index(n) for n in names]
    p = torch.cat([1 - p[:, own].sum(1, keepdim=True), p[:, own]], dim=1)
    options = {"to_onehot_y": True, "include_background": False, "squared_pred": True}
    dice = DiceLoss(**options, **SMOOTH)(p, label)
    expected = dice - p.gather(1, label.long()).log().mean()
    assert loss.item() == pytest.approx(float(expected), abs=1e-4)
    loss.backward()  # type: ignore[no-untyped-call]
