"""From the slices a user prompted to their neighbours, as far as there is something to see."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from umdseg.backbones.sam2d.pictures import Layout
from umdseg.backbones.sam2d.prompts import Ask, Placed, follow

Answers = Iterator[tuple[int, torch.Tensor]]


def walk(ask: Callable[[int, Ask], torch.Tensor], placed: Placed, layout: Layout, how: str) -> Answers:
    """Answer every key slice, then walk from each in both directions.

    Every next slice is asked with what `follow` makes of the answer before it, and with the user's clicks
    on it. A walk ends where the mask vanishes, at the next key slice and at the end of the prompt's reach.
    Inside a stated box it goes on where the mask vanished, asked with that box (so does the authors' 3-D
    baseline of MedSAM).

    Args:
        ask: slice number, prompt -> low-resolution logits (h, w).
        placed: the prompt on the stack.
        layout: of the slices.
        how: box, point or mask.

    Yields:
        (slice number, logits (h, w)); a slice that is reached from two keys comes twice.
    """
    answers = {key: ask(key, placed.first(key)) for key in placed.keys}
    yield from answers.items()
    for key in placed.keys:
        for step in (1, -1):
            low, number = answers[key], key + step
            while placed.reach[0] <= number <= placed.reach[1] and number not in answers:
                known = low.detach()
                prompt = follow(layout.enlarge(known[None])[0], known, how) or placed.box
                if prompt is None:
                    break
                low = ask(number, prompt.with_clicks(placed.clicks.get(number)))
                yield number, low
                number += step
