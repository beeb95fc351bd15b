"""Names -> factories, imported only when asked for; components from outside join by entry point."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from umdseg.errors import UserError, unknown

_TABLES: dict[str, dict[str, str]] = {
    "model": {
        "vista3d": "umdseg.backbones.vista3d:vista3d",
        "vista3d_tiny": "umdseg.backbones.vista3d:vista3d_tiny",
    },
    "adapter": {
        "none": "umdseg.adapters.none:NoAdapter",
        "full": "umdseg.adapters.full:FullTuning",
        "lora": "umdseg.adapters.lora:Lora",
    },
    "fusion": {"none": "umdseg.fusion.none:NoFusion"},
    "data": {
        "phantom": "umdseg.data.sources.phantom:PhantomSource",
        "petct": "umdseg.data.sources.manifest:ManifestSource",
        "petmri": "umdseg.data.sources.manifest:ManifestSource",
        "sts": "umdseg.data.sources.sts:StsSource",
        "umd": "umdseg.data.sources.umd:UmdSource",
        "autopet": "umdseg.data.sources.autopet:AutopetSource",
        "enhance_pet": "umdseg.data.sources.enhance_pet:EnhancePetSource",
        "amos": "umdseg.data.sources.amos:AmosSource",
        "totalsegmentator": "umdseg.data.sources.totalsegmentator:TotalSegmentatorSource",
        "synthrad": "umdseg.data.sources.synthrad:SynthradSource",
    },
    "prompt": {
        "auto": "umdseg.prompts.auto:AutoPrompts",
        "point": "umdseg.prompts.point:PointPrompts",
    },
}


def names(kind: str) -> list[str]:
    """All registered names of a kind, own and from entry points (group `umdseg.<kind>`)."""
    return sorted({**_TABLES[kind], **_outside(kind)})


def resolve(kind: str, name: str) -> Any:
    """Import and return the factory registered as `name`.

    Raises:
        UserError: no such kind or name (with the nearest one), or a package it needs is not installed.
    """
    if kind not in _TABLES:
        raise unknown("kind of component", kind, _TABLES)
    table = {**_TABLES[kind], **_outside(kind)}
    if name not in table:
        raise unknown(kind, name, table)
    module, _, attribute = table[name].partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        # a module of ours that is not there is a defect, and nothing to install
        if error.name is None or error.name.partition(".")[0] == "umdseg":
            raise
        raise UserError(
            f"{kind} '{name}' needs the package '{error.name}', which is not installed",
            expected=f"pip install {error.name}",
        ) from error


def _outside(kind: str) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=f"umdseg.{kind}")}
