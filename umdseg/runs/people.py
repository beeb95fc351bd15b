"""Who is trained on, who is scored, and which structures are looked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from umdseg.backbones.base import Backbone
from umdseg.config.schema import Settings
from umdseg.data.dataset import PairedDataset, few_shots
from umdseg.errors import UserError
from umdseg.evaluation.inputs import inputs_of
from umdseg.vocabulary import MODALITIES, Subject

if TYPE_CHECKING:
    from umdseg.data.datamodule import PairedDataModule


def training_data(
    settings: Settings, dataset: PairedDataset, backbone: Backbone, structures: Sequence[str]
) -> PairedDataModule:
    """Patches of the training subjects, prepared as the model's card says."""
    from umdseg.data.datamodule import PairedDataModule
    from umdseg.inference import preprocessing

    window, options = backbone.training_window, settings.data
    if "auto" not in backbone.card.prompts:
        # a patch without a structure gives clicks and boxes nothing to point at
        options = replace(options, foreground=1.0)
    return PairedDataModule(
        dataset,
        options,
        preprocessing(backbone.card, window),
        window,
        structures,
        settings.run.seed,
    )


def accept(door: str, settings: Settings, backbone: Backbone) -> None:
    """Refuse a model of several scans that would be trained, or asked without all of them.

    The configuration says so before anything is built, where the model's factory tells (`listing.takes`).

    Raises:
        UserError: naming the model or `data.modalities`.
    """
    inputs_of(backbone, [m for m in MODALITIES if m in settings.data.modalities])
    if door == "train" and backbone.takes and settings.fit.steps and settings.adapter.name != "none":
        raise UserError(
            f"model {backbone.card.name} takes {' and '.join(backbone.takes)} of one person together; "
            "adapters are trained on patches of single scans",
            where="model",
            expected="evaluate.py, or a model of one scan",
        )


def scored_subjects(
    door: str, settings: Settings, dataset: PairedDataset, backbone: Backbone, structures: Sequence[str]
) -> list[Subject]:
    """evaluate.py scores `data.split`; train.py the test subjects, with `overfit` those it trains on.

    Raises:
        UserError: nobody is left to score.
    """
    if door == "evaluate":
        chosen = dataset.of(settings.data.split)
    elif settings.run.overfit:
        chosen = training_data(settings, dataset, backbone, structures).training_subjects()
    else:
        chosen = dataset.of("test")
    return chosen[: settings.run.limit_subjects]


def scored_structures(
    settings: Settings, dataset: PairedDataset, learned: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The structures asked for; without a wish those the adapter was trained on, else all of the dataset.

    Args:
        settings: checked configuration.
        dataset: to be scored.
        learned: structures on the card of a saved adapter; None or empty: no adapter says anything.

    Raises:
        UserError: a structure the dataset lacks, or none in common with the adapter.
    """
    if settings.data.structures is not None or not learned:
        return dataset.select(settings.data.structures)
    common = tuple(name for name in dataset.structures if name in learned)
    if not common:
        own, has = ", ".join(learned), ", ".join(dataset.structures)
        raise UserError(
            f"the adapter was trained on none of the structures of dataset '{dataset.name}'",
            where="adapter.path",
            expected=f"one of the adapter's: {own}; the dataset has: {has} (data.structures= scores those)",
        )
    return common


def baseline_subjects(settings: Settings, dataset: PairedDataset) -> list[Subject]:
    """Who the baselines that learn are fitted on: the same people as the model, as few as `data.shots` says.

    Raises:
        UserError: a baseline learns, but the dataset has nobody to train on.
    """
    if "intensity" not in settings.evaluation.baselines:
        return []
    data = settings.data
    return few_shots(dataset.of("train"), data.shots, settings.run.seed, data.train_modalities)
