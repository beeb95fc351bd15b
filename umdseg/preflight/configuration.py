"""The configuration, composed exactly as the doors do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from umdseg.adapters import AdapterCard
from umdseg.config.check import examine
from umdseg.config.compose import hydra_session, search_problems
from umdseg.config.schema import Settings
from umdseg.config.values import Problem
from umdseg.data.verdict import Finding
from umdseg.errors import UserError
from umdseg.preflight.check import Check
from umdseg.runs.saved import adapter_folder, with_card, with_fusion


def configuration(
    door: str, overrides: Sequence[str], search: Sequence[str]
) -> tuple[Settings | None, Check]:
    """The settings, as far as they can be understood, and what is wrong with them."""
    missing = search_problems(search)
    if missing:
        return None, Check("configuration", "not composed", tuple(map(_finding, missing)))
    with hydra_session(search):
        outcome = examine(door, overrides, search)
    findings = list({(p.path, p.given): _finding(p) for p in outcome.problems}.values())
    settings = outcome.settings
    if settings is None:
        return None, Check("configuration", "not understood", tuple(findings))
    if (settings.adapter.path or settings.fusion.path) and door == "evaluate":
        try:
            settings = with_fusion(settings)
            if settings.adapter.path:
                settings = with_card(settings, AdapterCard.read(adapter_folder(settings.adapter.path)))
        except UserError as error:
            findings.append(Finding.of(error))
            # what else there is can be looked at without the adapter
            settings = replace(settings, adapter=replace(settings.adapter, path=None))
    parts = ("model", "data", "adapter")
    told = " ".join(f"{part}={getattr(settings, part).name}" for part in parts)
    return settings, Check(
        "configuration", "; ".join([f"{door}: {told}", *settings.notices]), tuple(findings)
    )


def _finding(problem: Problem) -> Finding:
    return Finding(
        "refuse", f"{problem.path}: {problem.given}", problem.path, problem.expected, problem.nearest
    )
