"""Fitting: the loss against MONAI's, what is trained, what is refused, what a checkpoint holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from monai.losses import DiceLoss
from torch.utils.data import DataLoader

from umdseg import adapters, load_backbone
from umdseg.adapters.full import FullTuning
from umdseg.adapters.lora import Lora, LoraOptions
from umdseg.adapters.none import NoAdapter
from umdseg.backbones.base import Backbone
from umdseg.errors import UserError
from umdseg.tasks import FitOptions, SegmentTask
from umdseg.tasks.loss import dice_ce
from umdseg.vocabulary import Batch

ORGANS = ("liver", "spleen")


def _batch(seed: int = 0, structures: tuple[str, ...] = ORGANS) -> Batch:
    """Two 16-voxel cubes: a bright box is the first structure, a dim one the second."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.05 * torch.rand(2, 1, 16, 16, 16, generator=generator)
    label = torch.zeros(2, 1, 16, 16, 16, dtype=torch.int16)
    image[:, :, 2:8, 3:12, 3:12] += 0.8
    label[:, :, 2:8, 3:12, 3:12] = 1
    image[:, :, 10:15, 4:12, 4:12] += 0.4
    label[:, :, 10:15, 4:12, 4:12] = 2
    affine = torch.diag(torch.tensor([6.0, 6.0, 6.0, 1.0])).expand(2, 4, 4).clone()
    return Batch(image, label, affine, ["ct", "pet"], ["a", "b"], ["", "FDG"], structures)


@pytest.fixture
def tiny() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("vista3d_tiny", "random")


def _lora(backbone: Backbone) -> Lora:
    adapter = Lora(LoraOptions(rank=2))
    adapter.inject(backbone)
    return adapter


def test_loss_is_monai_dice_of_what_is_there_plus_cross_entropy() -> None:
    torch.manual_seed(1)
    logits = torch.randn(2, 3, 6, 7, 8)
    target = (torch.rand(2, 3, 6, 7, 8) > 0.7).float()
    target[:, 2] = 0  # nowhere in the batch: cross-entropy only
    dice = DiceLoss(sigmoid=True, squared_pred=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    probability = logits.double().sigmoid()
    entropy = -(target * probability.log() + (1 - target) * (1 - probability).log()).mean()
    expected = dice(logits[:, :2], target[:, :2]) + 2.0 * entropy
    assert dice_ce(logits, target, ce_weight=2.0).item() == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["class", "points"])
def test_fitting_one_batch_lowers_its_loss(tiny: Backbone, share: float) -> None:
    adapter = FullTuning(FullTuning.Options(name="full"))
    adapter.inject(tiny)
    task = SegmentTask(tiny, adapter, FitOptions(steps=40, point_share=share), ORGANS)
    optimizer = torch.optim.AdamW([p for p in tiny.parameters() if p.requires_grad], lr=3e-3)
    tiny.train()
    losses = []
    for _ in range(15):
        loss = task.training_step(_batch(), 0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_only_the_adapter_changes(tiny: Backbone) -> None:
    before = {name: value.clone() for name, value in tiny.net.state_dict().items()}
    adapter = _lora(tiny)
    task = SegmentTask(tiny, adapter, FitOptions(steps=2, point_share=0.0), ORGANS)
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        task.training_step(_batch(), 0).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    adapters.unload(tiny)
    after = tiny.net.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_task_without_anything_to_train_is_refused(tiny: Backbone) -> None:
    adapter = NoAdapter(NoAdapter.Options(name="none"))
    adapter.inject(tiny)
    with pytest.raises(UserError, match="nothing to train"):
        SegmentTask(tiny, adapter, FitOptions(), ORGANS)


def test_unknown_structures_are_refused(tiny: Backbone) -> None:
    adapter = _lora(tiny)
    with pytest.raises(UserError, match="knows none of tumour"):
        SegmentTask(tiny, adapter, FitOptions(), ("tumour",))


def test_a_batch_that_trains_nothing_is_an_error(tiny: Backbone) -> None:
    """LoRA sits in the class branch only, but the step is prompted by clicks: no gradient anywhere."""
    adapter = Lora(LoraOptions(rank=2, targets=r"class_head\.image_post_mapping\.0\.layer\.conv1\.conv"))
    adapter.inject(tiny)
    task = SegmentTask(tiny, adapter, FitOptions(point_share=1.0), ORGANS)
    with pytest.raises(UserError, match="trains nothing"):
        task.training_step(_batch(), 0)


def test_a_short_fit_of_a_layer_that_nothing_reaches_ends_with_an_error(tiny: Backbone) -> None:
    adapter = Lora(LoraOptions(rank=2, targets=r"point_head\.mask_downsample|class_head\.mlp\.\d"))
    adapter.inject(tiny)
    task = SegmentTask(tiny, adapter, FitOptions(steps=2, point_share=0.0), ORGANS)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_steps=2, accelerator="cpu", enable_checkpointing=False, **quiet)
    with pytest.raises(UserError, match=r"after 2 steps no gradient has reached point_head\.mask_downsample"):
        trainer.fit(task, DataLoader([_batch()] * 5, batch_size=None))  # type: ignore[arg-type]


def test_a_new_class_row_alone_is_never_prompted_by_clicks(tiny: Backbone) -> None:
    rows = tiny.add_structures(["tumour"])
    adapter = NoAdapter(NoAdapter.Options(name="none"))
    adapter.inject(tiny, rows)
    task = SegmentTask(tiny, adapter, FitOptions(point_share=1.0), ("tumour",))
    loss = task.training_step(_batch(structures=("tumour", "liver")), 0)
    loss.backward()  # type: ignore[no-untyped-call]
    moved = [name for name, p in task.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert moved
    assert all("class_embeddings" in name for name in moved)


def test_a_patch_without_foreground_is_prompted_by_class(tiny: Backbone) -> None:
    adapter = _lora(tiny)
    task = SegmentTask(tiny, adapter, FitOptions(point_share=1.0), ORGANS)
    batch = _batch()
    batch.label.zero_()
    assert task.training_step(batch, 0).requires_grad


def _prompted(task: SegmentTask, batch: Batch, steps: int, monkeypatch) -> list[list[tuple[str, str]]]:
    """Per call of the decoder: (structure, how it was asked for)."""
    seen: list[list[tuple[str, str]]] = []
    decode = task.backbone.decode

    def spy(features, prompts):
        seen.append([(p.structure, "class" if p.kind == "auto" else "clicks") for p in prompts])
        return decode(features, prompts)

    monkeypatch.setattr(task.backbone, "decode", spy)
    for step in range(steps):
        task._step(batch, step)
    return seen


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["class", "clicks"])
def test_the_structure_a_patch_was_drawn_for_is_asked_for_first(
    tiny: Backbone, share: float, monkeypatch
) -> None:
    options = FitOptions(point_share=share, structures_per_step=1)
    task = SegmentTask(tiny, _lora(tiny), options, ORGANS)
    batch = _batch()
    anywhere = _prompted(task, batch, 12, monkeypatch)
    assert {name for call in anywhere for name, _ in call} == set(ORGANS)
    monkeypatch.undo()
    batch.asked = ["spleen", "spleen"]
    drawn = _prompted(task, batch, 12, monkeypatch)
    assert {name for call in drawn for name, _ in call} == {"spleen"}


def test_in_a_click_step_a_patch_with_nothing_to_click_on_is_prompted_by_class(
    tiny: Backbone, monkeypatch, capsys
) -> None:
    task = SegmentTask(tiny, _lora(tiny), FitOptions(point_share=1.0), ORGANS)
    batch = _batch()
    batch.label[1] = 0
    batch.asked = ["liver", ""]
    seen = _prompted(task, batch, 3, monkeypatch)
    clicks, classes = [(name, "clicks") for name in ORGANS], [(name, "class") for name in ORGANS]
    assert seen == [clicks, classes] * 3
    task.on_train_end()
    told = "3 of 6 patches in steps prompted by clicks held no structure and were prompted by class"
    assert capsys.readouterr().err.splitlines() == [told]


def test_nothing_is_said_where_every_patch_could_be_clicked(tiny: Backbone, monkeypatch, capsys) -> None:
    task = SegmentTask(tiny, _lora(tiny), FitOptions(point_share=1.0), ORGANS)
    assert len(_prompted(task, _batch(), 2, monkeypatch)) == 4
    task.on_train_end()
    assert capsys.readouterr().err == ""


def test_checkpoint_is_small_plain_and_of_this_run_only(tiny: Backbone, tmp_path: Path) -> None:
    adapter = _lora(tiny)
    task = SegmentTask(tiny, adapter, FitOptions(steps=1), ORGANS)
    trainer = Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(dirpath=tmp_path, filename="last", every_n_train_steps=1)],
    )
    trainer.fit(task, DataLoader([_batch()], batch_size=None))  # type: ignore[arg-type]
    # weights_only: nothing but tensors and plain Python may be inside
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    trained = {name for name, p in task.named_parameters() if p.requires_grad}
    assert set(stored["state_dict"]) == trained
    assert json.loads(json.dumps(dict(stored["hyper_parameters"])))["adapter"] == "lora"

    other = load_backbone("vista3d_tiny", "random")
    wider = Lora(LoraOptions(rank=2, targets=r"image_encoder\.encoder\.layers\.0\.blocks\.0\.conv1"))
    wider.inject(other)
    with pytest.raises(UserError, match="other tensors"):
        SegmentTask(other, wider, FitOptions(), ORGANS).on_load_checkpoint(stored)


def test_learning_rate_warms_up_then_falls_to_zero(tiny: Backbone) -> None:
    adapter = _lora(tiny)
    task = SegmentTask(tiny, adapter, FitOptions(steps=100, lr=1.0, warmup=0.1), ORGANS)
    made = task.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    # half-way down the cosine at the middle of what follows the warm-up
    assert rates[55] == pytest.approx(0.5, abs=0.02)
    assert rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)
