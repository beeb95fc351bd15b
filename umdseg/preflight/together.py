"""A model that takes several scans of one person: which, and who has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from umdseg.backbones import Backbone
from umdseg.backbones.listing import takes as told_before
from umdseg.config.schema import Settings
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.evaluation.inputs import JOINT, inputs_of
from umdseg.preflight.check import Check, count
from umdseg.vocabulary import MODALITIES, Subject


def inputs(settings: Settings, backbone: Backbone, scored: Sequence[Subject]) -> tuple[Settings, list[Check]]:
    """The settings with the scans the model is given, and one check of a model that takes several together.

    Args:
        settings: the configuration.
        backbone: the model; its weights do not matter.
        scored: who is scored.
    """
    try:
        takes = backbone.takes
        if takes:
            inputs_of(backbone, [m for m in MODALITIES if m in settings.data.modalities])
    except UserError as error:
        # the configuration's own check has said it of models that tell before they are built
        known = bool(told_before(settings.model))
        return settings, [] if known else [Check("inputs", "not usable", (Finding.of(error),))]
    if not takes:
        return settings, []
    whole = [subject for subject in scored if set(takes) <= set(subject.scans)]
    findings: tuple[Finding, ...] = ()
    if len(whole) < len(scored):
        people = f"{len(scored) - len(whole)} of {count(len(scored), 'scored subject')}"
        what = f"{people} lack one of {', '.join(takes)}"
        expected = f"{' and '.join(takes)} of every subject; without one the rows say modality_absent"
        findings = (Finding("warn" if whole else "refuse", what, "data", expected),)
    have = f"{len(whole)} of {count(len(scored), 'scored subject')} have them"
    numbers = f"{JOINT.join(takes)} of one person together; {have}"
    narrowed = replace(settings, data=replace(settings.data, modalities=list(takes)))
    return narrowed, [Check("inputs", numbers, findings)]
