"""Prompted segmentation: one step for fitting and validation, prompted by class, by clicks or by boxes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule

from umdseg.adapters import Adapter
from umdseg.adapters.gradient import GradientWatch
from umdseg.backbones.base import Backbone, Features
from umdseg.data.paired import PairedBatch
from umdseg.errors import UserError
from umdseg.fusion.base import Fused
from umdseg.seeds import generator
from umdseg.tasks.asking import Asked, Asking, Kind
from umdseg.tasks.competing import competing_logits
from umdseg.tasks.fused import called, encoded, groups, parts_of, subset_of, together
from umdseg.tasks.optimizer import optimizer_of
from umdseg.tasks.options import FitOptions
from umdseg.tasks.part import Part
from umdseg.tasks.scores import PatchDice, target_score
from umdseg.tasks.state import learned
from umdseg.tasks.trainable import refuse_untrainable
from umdseg.vocabulary import Batch, Origin, Prompt

_NAMES: dict[Kind, str] = {"auto": "class", "point": "points", "box": "boxes"}


class SegmentTask(LightningModule):
    """Fits whatever of the backbone requires gradients (an adapter, new class rows, or all of it).

    Args:
        backbone: model, its adapter already injected.
        adapter: that adapter; kept for its name only, its tensors live in the backbone.
        options: steps, loss, shares of prompts. With adapter none only class rows train, so that every step
            is prompted by class then.
        structures: names of the label values 1, 2, ... of the batches.
        seed: the run's seed; decides which prompts a step uses.
        targets: modalities whose mean validation Dice is `val/dice`; empty = all. Of a fusion it is the Dice
            with all its modalities given, whatever stands here.

    Attributes:
        asking: draws the prompts.
        prompted: prompts of the last training step.

    Raises:
        UserError: nothing requires gradients, the model's answers cannot be trained, or it knows none of the
            structures.
    """

    def __init__(
        self,
        backbone: Backbone,
        adapter: Adapter | None,
        options: FitOptions,
        structures: Sequence[str],
        seed: int = 0,
        targets: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.backbone, self.options, self.structures, self.seed = backbone, options, tuple(structures), seed
        self.targets = (called(backbone.modalities),) if isinstance(backbone, Fused) else tuple(targets)
        method = adapter.method if adapter else "none"
        self.method = method
        # without an adapter the fusion is all there is
        trained = backbone if method == "none" and isinstance(backbone, Fused) else adapter or Adapter
        self.lr = trained.default_lr if options.lr is None else options.lr
        # plain Python only: checkpoints with objects in their hparams cannot be loaded again
        self.save_hyperparameters(
            {"fit": asdict(options), "structures": list(structures), "adapter": method, "seed": seed}
        )
        # checkpoints hold the trained tensors only; the base comes from its own file
        self.strict_loading = False
        refuse_untrainable(backbone, method, structures)
        # with nothing but class rows to train, clicks train nothing
        self.asking = Asking(backbone, options, method == "none" and not isinstance(backbone, Fused))
        self.prompted: list[Asked] = []
        self._dice = PatchDice()
        self._said: set[str] = set()
        self._watch: GradientWatch | None = None
        self._kind: Kind = "auto"

    def training_step(self, batch: Batch | PairedBatch, index: int) -> torch.Tensor:
        """One fitting step; of modalities given together, some are left out at random."""
        # the batches of one accumulated step differ in their prompts, and a resumed run repeats them
        every = self.trainer.accumulate_grad_batches if self._trainer else 1
        number = self.global_step * every + index % every
        return self._step(together(batch, self.backbone, self.seed, number, self.global_rank), number)

    def validation_step(self, batch: Batch | PairedBatch, index: int) -> None:
        """Collect the overlaps of validation patches, asked by class where the model answers so."""
        # the same prompts every time, and in every process
        rng = generator(self.seed, "validation prompts", index)
        kind: Kind = next(k for k in ("auto", "point", "box") if k in self.backbone.card.prompts)
        for given in parts_of(together(batch), self.backbone):
            for part in self._parts(given, rng, kind, fitting=False):
                # a voxel is its best structure's, as in whole scans
                self._dice.collect(part, exclusive=kind == "auto")

    def on_validation_epoch_end(self) -> None:
        """Log `val/dice` (the mean over target modalities; of a fusion, all of them given) and each's own.

        Raises:
            UserError: no patch held a structure the model knows.
        """
        scores, self._dice = self._dice.by_modality(), PatchDice()
        mean = target_score(scores, self.targets)
        if mean is None:
            raise UserError(
                "the validation patches hold none of the structures the model knows",
                where="fit.validate_every",
                expected="validation subjects whose labels hold trained structures",
            )
        if isinstance(self.backbone, Fused) and not scores.keys() & set(self.targets):
            self._say(f"nobody to validate on has {self.targets[0]}: val/dice is the mean of its parts")
        self.log_dict({"val/dice": mean, **{f"val/dice/{m}": score for m, score in scores.items()}})

    def on_train_start(self) -> None:
        """Train in training mode; Lightning otherwise keeps the eval mode the base was loaded in."""
        self.backbone.train()
        inner = self.backbone.inner if isinstance(self.backbone, Fused) else self.backbone
        adapted = any(p.requires_grad for p in inner.parameters())
        self._watch = GradientWatch(inner) if adapted else None

    def on_after_backward(self) -> None:
        """Refuse an adapter that no gradient reaches."""
        # a step without anything to point at has gradients of 0 everywhere
        if self._watch is not None and self.prompted:
            self._watch.step(self._kind)

    def on_train_epoch_end(self) -> None:
        """Judge the gradients of a short fit before anything is scored."""
        last = self.trainer.should_stop or 0 <= self.trainer.max_steps <= self.global_step
        if last and self._watch is not None:
            self._watch.finish()

    def on_train_end(self) -> None:
        """Say how many patches of steps prompted by clicks or boxes held nothing to point at."""
        asking = self.asking
        if asking.empty and self.global_rank == 0:
            names: dict[Kind, str] = {"point": "clicks", "box": "boxes"}
            kinds = " or ".join(name for kind, name in names.items() if asking.shares.get(kind))
            told = f"{asking.empty} of {asking.patches} patches in steps prompted by {kinds}"
            done = "were prompted by class" if asking.by_class else "were left out"
            print(f"{told} held no structure and {done}", file=sys.stderr, flush=True)

    def _step(self, batch: Batch, number: int) -> torch.Tensor:
        rng = generator(self.seed, "prompts", "train", number, self.global_rank)
        kind, self.prompted = self.asking.kind(rng), []
        if kind != "auto":
            empty = int((batch.label.flatten(1) == 0).all(dim=1).sum())
            self.asking.patches += len(batch.label)
            self.asking.empty += empty
            if empty == len(batch.label):
                # without any structure there is nothing to point at
                if not self.asking.by_class:
                    return self._nothing()
                kind = "auto"
        self._kind = kind
        parts = list(self._parts(batch, rng, kind))
        losses = torch.stack([part.loss(self.options) for part in parts])
        share = torch.tensor([len(part.logits) for part in parts], device=losses.device)
        loss = (losses * share).sum() / share.sum()
        if not loss.requires_grad:
            raise UserError(
                f"step {number} trains nothing: prompted by {_NAMES[kind]}, no trained tensor was involved",
                where="fit.point_share / adapter",
                expected="an adapter on the branch that is prompted",
            )
        values: dict[str, Any] = {"train/loss": loss, f"train/loss_{_NAMES[kind]}": loss}
        values["train/prompts"] = float(sum(len(part.asked) for part in parts))
        self.log_dict(values, batch_size=batch.image.shape[0], on_step=True, on_epoch=False)
        return loss

    def _nothing(self) -> torch.Tensor:
        """A loss of 0 that every trained tensor takes part in."""
        return torch.stack([p.sum() * 0 for p in self.parameters() if p.requires_grad]).sum()

    def _parts(
        self, batch: Batch, rng: np.random.Generator, kind: Kind, fitting: bool = True
    ) -> Iterator[Part]:
        """Answers to a batch; of several adapters, each gets the samples of its route.

        In validation (`fitting` false) all structures are asked for, nothing is balanced or counted, and
        samples whose route knows none of the structures are left out.
        """
        for origin, some in self._grouped(batch):
            with self.backbone.routed(origin):
                if kind == "auto" and not fitting and not self.asking.known(some):
                    self._skipped(origin, some)
                    continue
                features = encoded(self.backbone, some)
                if kind == "auto":
                    yield self._by_class(some, features, rng, fitting)
                else:
                    yield from self._placed(some, features, rng, kind, fitting)

    def _skipped(self, origin: Origin | None, batch: Batch) -> None:
        per = self.backbone.adapter.per if origin and self.backbone.adapter else None
        name = (origin and per and getattr(origin, per)) or batch.modality[0]
        names = ", ".join(batch.structures)
        self._say(f"{name} is not validated: without an adapter of its own, the model knows none of {names}")

    def _say(self, text: str) -> None:
        if text not in self._said and self.global_rank == 0:
            print(text, file=sys.stderr, flush=True)
        self._said.add(text)

    def _grouped(self, batch: Batch) -> Iterator[tuple[Origin | None, Batch]]:
        """The samples that go through one adapter together."""
        adapter = self.backbone.adapter
        if adapter is None or not adapter.routes:
            yield None, batch
            return
        origins = batch.origins
        # given together, each modality finds its own adapter; the PET's tracer and the site are the sample's
        joint = batch.present is not None
        routes = [(o.tracer, o.site) if joint else adapter.route(o) for o in origins]
        for route in dict.fromkeys(routes):
            which = [i for i, other in enumerate(routes) if other == route]
            yield origins[which[0]], batch.take(which)

    def _by_class(self, batch: Batch, features: Features, rng: np.random.Generator, fitting: bool) -> Part:
        known = self.asking.classes(batch, rng, limited=fitting)
        names = tuple(batch.structures[i] for i in known)
        if fitting:
            scans = list(zip(batch.subject, batch.modality, subset_of(batch, self.backbone), strict=True))
            self.prompted += [
                Asked(who, m, name, "auto", 0, subset) for who, m, subset in scans for name in names
            ]
        competing = fitting and self.backbone.card.output == "softmax" and self.backbone.has_dense
        if competing:
            logits = competing_logits(self.backbone, self.backbone.dense(features), names)
        else:
            logits = self.backbone.decode(features, [Prompt(name) for name in names])
        told = None if batch.annotated is None else batch.annotated[:, known]
        target = torch.cat([batch.label == i + 1 for i in known], dim=1)
        return Part(logits, target, batch, names, told, competing)

    def _placed(
        self, batch: Batch, features: Features, rng: np.random.Generator, kind: Kind, fitting: bool
    ) -> Iterator[Part]:
        """One part per sample, for clicks and boxes differ between samples.

        The structure a patch was drawn for is always among those pointed at. A patch without any structure
        is prompted by class where the model can be, so that every sample of every step counts.
        """
        for index in range(batch.image.shape[0]):
            one, own = batch.take([index]), features.sample(index)
            values = self.asking.values(one, rng, balanced=fitting)
            prompts = [self.asking.prompt(one, value, kind, rng) for value in values]
            if fitting:
                scan, (subset,) = (one.subject[0], one.modality[0]), subset_of(one, self.backbone)
                self.asking.count(prompts)
                self.prompted += [Asked(*scan, p.structure, p.kind, len(p.points), subset) for p in prompts]
            if prompts:
                target = torch.cat([one.label == value for value in values], dim=1)
                names = tuple(prompt.structure for prompt in prompts)
                yield Part(self.backbone.decode(own, prompts), target, one, names)
            elif self.asking.by_class:
                yield self._by_class(one, own, rng, fitting)

    def configure_optimizers(self) -> Any:
        """AdamW on what requires gradients; linear warm-up, then cosine decay to zero."""
        return optimizer_of(groups(self.backbone, self.lr, self.method), self.lr, self.options)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what training changes: an adapter's checkpoint is megabytes, not the whole base."""
        kept = learned(self)
        state: Mapping[str, torch.Tensor] = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if name in kept}
        checkpoint["placed"] = dict(self.asking.placed)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other tensors than those trained here.

        Raises:
            UserError: the checkpoint is of another adapter or model.
        """
        kept, stored = set(learned(self)), set(checkpoint["state_dict"])
        if kept != stored:
            odd = sorted(kept ^ stored)
            raise UserError(
                f"checkpoint holds other tensors than this run trains ({len(odd)} differ, first: {odd[0]})",
                where="ckpt_path",
                expected="a checkpoint of the same model and adapter",
            )
        self.asking.placed.update(checkpoint.get("placed", {}))
