"""A fusion: whether it fits the model, and what its predictions take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umdseg import fusion
from umdseg.backbones.base import Backbone
from umdseg.config.schema import Settings
from umdseg.data.geometry import Grid
from umdseg.data.training import together
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.evaluation.inputs import JOINT, inputs_of
from umdseg.fusion import Fused
from umdseg.fusion.saved import FusionCard
from umdseg.preflight.check import Check
from umdseg.runs.evaluate import fused_parameters
from umdseg.runs.saved import adapter_folder, refuse_strangers
from umdseg.vocabulary import MODALITIES, Modality, Subject


@dataclass(frozen=True)
class Joined:
    """What a fusion changes in the cost of a run.

    Each scan of an input goes through the network by itself, except where all go through in one pass.

    Attributes:
        order: its modalities, who leads first.
        inputs: what is asked of it per subject: all subsets, or all modalities only.
        passes: scans with a pass of their own in a training sample with all of them.
        mean_passes: the same, with some left out at random.
        nbytes: of its own tensors.
    """

    order: tuple[Modality, ...]
    inputs: tuple[tuple[Modality, ...], ...]
    passes: int
    mean_passes: float
    nbytes: int

    @classmethod
    def of(cls, fused: Fused, modalities: Sequence[Modality]) -> Joined:
        """What follows from a fused model, with the modalities that are looked at."""
        count, drop = (1 if fused.one_pass else len(fused.modalities)), fused.options.dropout
        # one is kept where all would be left out
        mean = 1.0 if fused.one_pass else count * (1 - drop) + drop**count
        order = tuple(fused.modalities[i] for i in fused.order)
        nbytes = sum(p.nbytes for p in fused.parts.parameters())
        return cls(order, tuple(inputs_of(fused, modalities)), count, mean, nbytes)

    def scored(self, subject: Subject, grids: Mapping[Path, Grid]) -> list[tuple[Grid, int]]:
        """(grid of the leading scan, passes per window) of every input that a subject has."""
        found = []
        for given in self.inputs:
            lead = next(m for m in self.order if m in given)
            if set(given) <= set(subject.scans) and subject.scans[lead].image in grids:
                found.append((grids[subject.scans[lead].image], min(len(given), self.passes)))
        return found


def join(
    settings: Settings, backbone: Backbone, trained: Sequence[Subject], names: Sequence[str], door: str
) -> tuple[Joined | None, list[Check]]:
    """Put the fusion around the model as the run would, take it off again, and say what it is.

    Args:
        settings: the configuration.
        backbone: with its adapter injected; stays as it is.
        trained: who is trained on.
        names: structures asked for.
        door: `train` or `evaluate`.
    """
    options = settings.fusion
    if options.name == "none" or (door == "train" and not (trained and settings.fit.steps)):
        return None, []
    saved = Path(options.path).expanduser() if options.path and door == "evaluate" else None
    untried = saved is not None and backbone.random_weights
    try:
        if saved is not None:
            beside = settings.adapter.path
            refuse_strangers(saved, adapter_folder(beside) if beside else None)
        if saved is not None and untried:
            card = FusionCard.read(saved)
            fused = fusion.build(options, backbone, card.modalities, card.reference, card.structures)
        elif saved is not None:
            fused = fusion.load_fusion(saved, backbone, options.subsets)
        else:
            given = together(trained, settings.data.train_modalities)
            fused = fusion.build(options, backbone, given, settings.data.reference, names)
    except UserError as error:
        return None, [Check("fusion", f"{options.name} does not fit", (Finding.of(error),))]
    assert isinstance(fused, Fused)
    joined = Joined.of(fused, [m for m in MODALITIES if m in settings.data.modalities])
    fused.release()
    what = f"{options.name}: {JOINT.join(fused.modalities)}, {joined.order[0]} leads; "
    what += f"{fused_parameters(fused):,} parameters of its own"
    what += ", saved; not tried (the model's weights are not at hand)" if untried else ""
    return joined, [Check("fusion", what)]
