"""Dice of validation patches, pooled by scan and structure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import torch

from umdseg.tasks.part import Part


class PatchDice:
    """Collects overlaps of patches; a structure's Dice in a scan is over all patches of that scan.

    Pooling is nnU-Net's "pseudo Dice" (Isensee et al., Nature Methods 2021), here by scan, so that every
    subject counts alike.
    """

    def __init__(self) -> None:
        self._sums: defaultdict[tuple[str, str, str], torch.Tensor] = defaultdict(lambda: torch.zeros(3))

    def add(
        self, scan: tuple[str, str], names: Sequence[str], found: torch.Tensor, target: torch.Tensor
    ) -> None:
        """One patch.

        Args:
            scan: subject and modality.
            names: structures, in the order of the channels.
            found: (K, X, Y, Z) bool, the prediction.
            target: (K, X, Y, Z) bool.
        """
        axes = (1, 2, 3)
        sums = [(found & target).sum(axes), found.sum(axes), target.sum(axes)]
        for name, row in zip(names, torch.stack(sums, dim=1).float().cpu(), strict=True):
            self._sums[(*scan, name)] += row

    def collect(self, part: Part, exclusive: bool) -> None:
        """The answers of one pass, each structure where the sample's label tells about it.

        Args:
            part: answers and targets.
            exclusive: a voxel is its best structure's alone.
        """
        found = part.logits > 0
        if exclusive:
            found &= part.logits == part.logits.amax(dim=1, keepdim=True)
        for i, scan in enumerate(zip(part.batch.subject, part.batch.modality, strict=True)):
            told = range(len(part.asked)) if part.told is None else part.told[i].nonzero().flatten().tolist()
            names = [part.asked[k] for k in told]
            self.add(scan, names, found[i, list(told)], part.target[i, list(told)])

    def by_modality(self) -> dict[str, float]:
        """Mean Dice of each modality: over the structures of a scan, then over scans.

        Structures that no patch of the scan held are left out.
        """
        scans: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for (subject, modality, _), (both, ours, theirs) in self._sums.items():
            if theirs > 0:
                scans[subject, modality].append(float(2 * both / (ours + theirs)))
        found: defaultdict[str, list[float]] = defaultdict(list)
        for (_, modality), values in scans.items():
            found[modality].append(sum(values) / len(values))
        return {modality: sum(values) / len(values) for modality, values in found.items()}


def target_score(scores: Mapping[str, float], targets: Collection[str]) -> float | None:
    """Mean over the target modalities; over all where none of them was scored; None where nothing was."""
    chosen = [score for modality, score in scores.items() if modality in targets] or list(scores.values())
    return sum(chosen) / len(chosen) if chosen else None
