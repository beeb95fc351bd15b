"""What a training step asks the model for, and how: by class, by clicks or by a box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from umdseg.backbones.base import Backbone
from umdseg.data.geometry import Grid
from umdseg.errors import UserError
from umdseg.prompts.boxes import loosened, tight_box
from umdseg.prompts.clicks import sample_clicks
from umdseg.tasks.options import FitOptions
from umdseg.vocabulary import Batch, Prompt, PromptKind

Kind = Literal["auto", "point", "box"]
PLACED_PER_SAMPLE = 3


@dataclass(frozen=True)
class Asked:
    """One prompt of one sample.

    Attributes:
        subject: whose patch.
        modality: of the patch; all that the model takes, where scans are given together.
        structure: asked for.
        kind: how.
        clicks: number of clicks.
        subset: scans given together that the sample was left with, as in cases.csv; "" of one scan.
    """

    subject: str
    modality: str
    structure: str
    kind: PromptKind
    clicks: int
    subset: str = ""


def shares(takes: Sequence[str], options: FitOptions) -> dict[Kind, float]:
    """Share of steps by kind of prompt, among the kinds that a model takes.

    A kind that it does not take gives its share to the others, in proportion; where nothing wanted is left,
    all that it takes are asked for alike.

    Args:
        takes: the card's prompt kinds.
        options: the wanted shares.

    Raises:
        UserError: a model that is asked in no way that can be trained.
    """
    wanted: dict[Kind, float] = {
        "auto": 1 - options.point_share - options.box_share,
        "point": options.point_share,
        "box": options.box_share,
    }
    kept = {kind: share for kind, share in wanted.items() if kind in takes}
    if not kept:
        raise UserError(
            f"a model that takes {', '.join(takes)} prompts cannot be trained by prompts",
            where="model",
            expected="a model that takes auto, point or box prompts",
        )
    total = sum(kept.values())
    return {k: share / total if total > 0 else 1 / len(kept) for k, share in kept.items()}


class Asking:
    """Draws the prompts of training steps.

    Args:
        backbone: the model asked.
        options: shares, clicks, boxes.
        class_only: only class rows train, so that no step is prompted in another way.

    Attributes:
        shares: share of steps by kind of prompt.
        patches: patches of steps prompted by clicks or boxes.
        empty: those of them without a structure.
        placed: how often each structure was clicked on or boxed in training (see `count`).
    """

    def __init__(self, backbone: Backbone, options: FitOptions, class_only: bool = False) -> None:
        self.backbone, self.options = backbone, options
        self.shares: dict[Kind, float] = (
            {"auto": 1.0} if class_only else shares(backbone.card.prompts, options)
        )
        self.patches, self.empty = 0, 0
        self.placed: Counter[str] = Counter()

    @property
    def by_class(self) -> bool:
        """Whether the model answers by class at all."""
        return "auto" in self.backbone.card.prompts

    def kind(self, rng: np.random.Generator) -> Kind:
        """How one step asks."""
        drawn, points = rng.random(), self.shares.get("point", 0.0)
        if drawn < points:
            return "point"
        return "box" if drawn < points + self.shares.get("box", 0.0) or "auto" not in self.shares else "auto"

    def known(self, batch: Batch) -> list[int]:
        """Positions in `batch.structures` of what the model, as it is routed now, knows by class."""
        return [i for i, name in enumerate(batch.structures) if self.backbone.knows(name)]

    def classes(self, batch: Batch, rng: np.random.Generator, limited: bool = True) -> list[int]:
        """Positions in `batch.structures` of what a step asks for by class.

        Raises:
            UserError: the model knows none of them.
        """
        known = self.known(batch)
        limit = self.options.structures_per_step if limited else None
        if limit is not None and limit < len(known):
            present = set(torch.unique(batch.label).tolist())
            held = [i for i in known if i + 1 in present] or known
            drawn = rng.choice(held, size=min(limit, len(held)), replace=False).tolist()
            first = [i for i in held if batch.structures[i] in batch.asked][: len(drawn)]
            known = sorted(first + [i for i in drawn if i not in first][: len(drawn) - len(first)])
        if not known:
            raise UserError("a batch trains nothing: no structure of it is known to the model")
        return known

    def values(self, one: Batch, rng: np.random.Generator, balanced: bool = True) -> list[int]:
        """Label values clicked on or boxed in a sample: the one it was drawn for, and others at random.

        Args:
            one: the sample.
            rng: decides everything, where nothing is balanced.
            balanced: heed what was asked for before, if the options say so; validation does not.
        """
        present = [int(v) for v in torch.unique(one.label) if v > 0]
        count = min(len(present), self.options.structures_per_step or PLACED_PER_SAMPLE)
        if not count:
            return []
        names = {v: one.structures[v - 1] for v in present}
        chances = None
        if balanced and self.options.balance_prompts:
            rarity = np.array([1 / (1 + self.placed[names[v]]) for v in present])
            chances = rarity / rarity.sum()
        values: list[int] = rng.choice(present, size=count, replace=False, p=chances).tolist()
        first = [v for v in present if names[v] in one.asked]
        if first and first[0] not in values:
            values[0] = first[0]
        return sorted(values)

    def count(self, prompts: Sequence[Prompt]) -> None:
        """Note what a training step clicked on or boxed."""
        self.placed.update(prompt.structure for prompt in prompts)

    def prompt(self, one: Batch, value: int, kind: Kind, rng: np.random.Generator) -> Prompt:
        """Clicks on, or a box around, a structure that the sample holds."""
        name = one.structures[value - 1]
        label, affine = one.label[0, 0].cpu().numpy(), one.affine[0].cpu().numpy()
        if kind == "box":
            box = tight_box(label == value, Grid(label.shape, affine.astype(np.float64)))
            if box is None:
                raise ValueError(f"label value {value} is not in the patch")
            loose = loosened(box, self.options.box_margin_mm, self.options.box_jitter_mm, rng)
            return Prompt(name, "box", box=loose)
        most = self.options.positive_clicks, self.options.negative_clicks
        if "clicks" not in self.backbone.card.prompts:
            most = 1, 0
        prompt = sample_clicks(label, value, affine, rng, name, *most)
        if prompt is None:
            raise ValueError(f"label value {value} is not in the patch")
        return prompt
