"""Prompted segmentation: one step for fitting and validation, prompted by class or by clicks."""

from __future__ import annotations

import math
import sys
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
# logits and targets (B, K, X, Y, Z), and (B, K) where the target is known (None: everywhere)
Part = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


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
        # patches of click-prompted steps, and those of them without anything to click on
        self.patches, self.unclicked = 0, 0
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

    def on_train_end(self) -> None:
        """Say how many patches of click-prompted steps held nothing to click on."""
        if self.unclicked and self.global_rank == 0:
            told = f"{self.unclicked} of {self.patches} patches in steps prompted by clicks"
            text = f"{told} held no structure and were prompted by class"
            print(text, file=sys.stderr, flush=True)

    def _step(self, batch: Batch, stage: str, number: int) -> torch.Tensor:
        rng = generator(self.seed, "prompts", stage, number, self.global_rank)
        clicked = rng.random() < self.point_share and "point" in self.backbone.card.prompts
        if clicked:
            empty = int((batch.label.flatten(1) == 0).all(dim=1).sum())
            self.patches += len(batch.label)
            self.unclicked += empty
            # without any structure there is nothing to click on
            clicked = empty < len(batch.label)
        kind = "points" if clicked else "class"
        parts = self._parts(batch, rng, clicked)
        weight = self.options.ce_weight
        losses = torch.stack([dice_ce(logits, target, weight, told) for logits, target, told in parts])
        share = torch.tensor([len(logits) for logits, *_ in parts], device=losses.device)
        loss = (losses * share).sum() / share.sum()
        if stage == "train" and not loss.requires_grad:
            raise UserError(
                f"step {number} trains nothing: prompted by {kind}, no trained tensor was involved",
                where="fit.point_share / adapter",
                expected="an adapter on the branch that is prompted",
            )
        prompts = sum(logits.shape[1] for logits, *_ in parts)
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
            drawn = rng.choice(held, size=min(limit, len(held)), replace=False).tolist()
            first = [i for i in held if batch.structures[i] in batch.asked][: len(drawn)]
            known = sorted(first + [i for i in drawn if i not in first][: len(drawn) - len(first)])
        if not known:
            raise UserError("a batch trains nothing: no structure of it is known to the model")
        logits = self.backbone.decode(features, [Prompt(batch.structures[i]) for i in known])
        told = None if batch.annotated is None else batch.annotated[:, known]
        return [(logits, torch.cat([batch.label == i + 1 for i in known], dim=1), told)]

    def _clicked(self, batch: Batch, features: Features, rng: np.random.Generator) -> list[Part]:
        """One (1, K, X, Y, Z) pair per sample; clicks differ between samples.

        The structure a patch was drawn for is always among those clicked on. A patch without any structure
        is prompted by class, so that every sample of every step counts.
        """
        parts: list[Part] = []
        for index in range(batch.image.shape[0]):
            one, own = batch.take([index]), features.sample(index)
            values = self._to_click(one, rng)
            prompts = [self._clicks(one, value, rng) for value in values]
            if prompts:
                target = torch.cat([one.label == value for value in values], dim=1)
                parts.append((self.backbone.decode(own, prompts), target, None))
            else:
                parts += self._by_class(one, own, rng)
        return parts

    def _to_click(self, one: Batch, rng: np.random.Generator) -> list[int]:
        """Label values present in a sample: the one it was drawn for, and others at random."""
        present = [int(v) for v in torch.unique(one.label) if v > 0]
        count = min(len(present), self.options.structures_per_step or CLICKED_PER_SAMPLE)
        if not count:
            return []
        values: list[int] = rng.choice(present, size=count, replace=False).tolist()
        first = [v for v in present if one.structures[v - 1] in one.asked]
        if first and first[0] not in values:
            values[0] = first[0]
        return sorted(values)

    def _clicks(self, one: Batch, value: int, rng: np.random.Generator) -> Prompt:
        label, affine = one.label[0, 0].cpu().numpy(), one.affine[0].cpu().numpy()
        most = self.options.positive_clicks, self.options.negative_clicks
        prompt = sample_clicks(label, value, affine, rng, one.structures[value - 1], *most)
        if prompt is None:
            raise ValueError(f"label value {value} is not in the patch")
        return prompt

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
