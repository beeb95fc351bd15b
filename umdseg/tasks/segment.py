"""Prompted segmentation: one step for fitting and validation, prompted by class or by clicks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule

from umdseg.adapters import Adapter
from umdseg.backbones.base import Backbone, Features
from umdseg.errors import UserError
from umdseg.prompts.clicks import sample_clicks
from umdseg.seeds import generator
from umdseg.tasks.loss import dice_ce
from umdseg.tasks.options import FitOptions
from umdseg.vocabulary import Batch, Prompt

CLICKED_PER_SAMPLE = 3
# logits and targets (B, K, X, Y, Z)
Part = tuple[torch.Tensor, torch.Tensor]


class SegmentTask(LightningModule):
    """Fits whatever of the backbone requires gradients (an adapter, new class rows, or all of it).

    Args:
        backbone: model, its adapter already injected.
        adapter: that adapter; kept for its name only, its tensors live in the backbone.
        options: steps, learning rate, share of clicked steps. With adapter none only class rows train,
            so no step is prompted by clicks then.
        structures: names of the label values 1, 2, ... of the batches.
        seed: the run's seed; decides which prompts a step uses.

    Raises:
        UserError: nothing requires gradients, or the backbone knows none of the structures.
    """

    def __init__(
        self,
        backbone: Backbone,
        adapter: Adapter | None,
        options: FitOptions,
        structures: Sequence[str],
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone, self.options, self.structures, self.seed = backbone, options, tuple(structures), seed
        method = adapter.method if adapter else "none"
        self.point_share = 0.0 if method == "none" else options.point_share
        self.lr = (adapter or Adapter).default_lr if options.lr is None else options.lr
        # plain Python only: checkpoints with objects in their hparams cannot be loaded again
        self.save_hyperparameters(
            {"fit": asdict(options), "structures": list(structures), "adapter": method, "seed": seed}
        )
        # checkpoints hold the trained tensors only; the base comes from its own file
        self.strict_loading = False
        if not any(p.requires_grad for p in backbone.parameters()):
            raise UserError(
                f"adapter={method} leaves nothing to train", where="adapter", expected="lora or full"
            )
        if not any(backbone.knows(name) for name in structures):
            raise UserError(
                f"model {backbone.card.name} knows none of {', '.join(structures)}", where="data.structures"
            )

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        """One fitting step."""
        # the batches of one accumulated step differ in their prompts, and a resumed run repeats them
        every = self.trainer.accumulate_grad_batches if self._trainer else 1
        return self._step(batch, "train", self.global_step * every + index % every)

    def validation_step(self, batch: Batch, index: int) -> torch.Tensor:
        """The same step without gradients."""
        return self._step(batch, "val", index)

    def on_train_start(self) -> None:
        """Train in training mode; Lightning otherwise keeps the eval mode the base was loaded in."""
        self.backbone.train()

    def _step(self, batch: Batch, stage: str, number: int) -> torch.Tensor:
        rng = generator(self.seed, "prompts", stage, number, self.global_rank)
        clicked = rng.random() < self.point_share and "point" in self.backbone.card.prompts
        # without a structure there is nothing to click on
        clicked = clicked and bool(batch.label.any())
        kind = "points" if clicked else "class"
        parts = self._parts(batch, rng, clicked)
        losses = torch.stack([dice_ce(logits, target, self.options.ce_weight) for logits, target in parts])
        share = torch.tensor([len(logits) for logits, _ in parts], device=losses.device)
        loss = (losses * share).sum() / share.sum()
        if stage == "train" and not loss.requires_grad:
            raise UserError(
                f"step {number} trains nothing: prompted by {kind}, no trained tensor was involved",
                where="fit.point_share / adapter",
                expected="an adapter on the branch that is prompted",
            )
        prompts = sum(logits.shape[1] for logits, _ in parts)
        values: dict[str, Any] = {f"{stage}/loss": loss, f"{stage}/loss_{kind}": loss}
        values[f"{stage}/prompts"] = float(prompts)
        self.log_dict(values, batch_size=batch.image.shape[0], on_step=True, on_epoch=False)
        return loss

    def _parts(self, batch: Batch, rng: np.random.Generator, clicked: bool) -> list[Part]:
        """Logits and targets; with one adapter per modality the samples of each go through its own."""
        adapter = self.backbone.adapter
        parts: list[Part] = []
        for modality in dict.fromkeys(batch.modality) if adapter and adapter.routes else (None,):
            some = batch if modality is None else batch.of(modality)
            with self.backbone.routed(modality):
                features = self.backbone.encode(some.image, some.affine)
                ask = self._clicked if clicked else self._by_class
                parts += ask(some, features, rng)
        return parts

    def _by_class(self, batch: Batch, features: Features, rng: np.random.Generator) -> list[Part]:
        known = [i for i, name in enumerate(batch.structures) if self.backbone.knows(name)]
        limit = self.options.structures_per_step
        if limit is not None and limit < len(known):
            present = set(torch.unique(batch.label).tolist())
            held = [i for i in known if i + 1 in present] or known
            known = sorted(rng.choice(held, size=min(limit, len(held)), replace=False).tolist())
        if not known:
            raise UserError("a batch trains nothing: no structure of it is known to the model")
        logits = self.backbone.decode(features, [Prompt(batch.structures[i]) for i in known])
        return [(logits, torch.cat([batch.label == i + 1 for i in known], dim=1))]

    def _clicked(self, batch: Batch, features: Features, rng: np.random.Generator) -> list[Part]:
        """One (1, K, X, Y, Z) pair per sample; clicks differ between samples."""
        parts = []
        for index in range(batch.image.shape[0]):
            label = batch.label[index, 0]
            present = [int(v) for v in torch.unique(label) if v > 0]
            count = min(len(present), self.options.structures_per_step or CLICKED_PER_SAMPLE)
            values = sorted(rng.choice(present, size=count, replace=False).tolist()) if count else []
            drawn = [(v, self._clicks(batch, index, v, rng)) for v in values]
            prompts = [(v, prompt) for v, prompt in drawn if prompt is not None]
            if prompts:
                logits = self.backbone.decode(features.sample(index), [p for _, p in prompts])
                parts.append((logits, torch.stack([label == v for v, _ in prompts])[None]))
        return parts

    def _clicks(self, batch: Batch, index: int, value: int, rng: np.random.Generator) -> Prompt | None:
        label, affine = batch.label[index, 0].cpu().numpy(), batch.affine[index].cpu().numpy()
        most = self.options.positive_clicks, self.options.negative_clicks
        return sample_clicks(label, value, affine, rng, batch.structures[value - 1], *most)

    def configure_optimizers(self) -> Any:
        """AdamW on what requires gradients; linear warm-up, then cosine decay to zero."""
        options = self.options
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.lr, weight_decay=options.weight_decay)
        warm = max(1, round(options.warmup * options.steps))

        def factor(step: int) -> float:
            left = max(0.0, (step - warm) / max(1, options.steps - warm))
            return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(1.0, left))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained tensors only: an adapter's checkpoint is megabytes, not the whole base."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        state: Mapping[str, torch.Tensor] = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if name in trained}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other tensors than those trained here.

        Raises:
            UserError: the checkpoint is of another adapter or model.
        """
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        stored = set(checkpoint["state_dict"])
        if trained != stored:
            odd = sorted(trained ^ stored)
            raise UserError(
                f"checkpoint holds other tensors than this run trains ({len(odd)} differ, first: {odd[0]})",
                where="ckpt_path",
                expected="a checkpoint of the same model and adapter",
            )
