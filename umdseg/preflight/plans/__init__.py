"""What a scan takes: which passes of a network, how many of them, and what is kept in memory meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from umdseg.backbones.base import Backbone
from umdseg.config.schema import Settings
from umdseg.preflight.plans.base import Plan, Step, WindowPlan

__all__ = ["Plan", "Step", "WindowPlan", "plan_of"]


def plan_of(settings: Settings, backbone: Backbone, names: Sequence[str]) -> Plan:
    """The plan of a model as it evaluates scans.

    Models with a volume loop of their own have a plan of their own; all others go through windows.

    Args:
        settings: the configuration.
        backbone: on the meta device, in eval mode.
        names: structures asked for.
    """
    from umdseg.backbones.nninteractive.backbone import Nninteractive
    from umdseg.backbones.nnunet.backbone import Nnunet
    from umdseg.backbones.sam2d.backbone import Sam2d
    from umdseg.backbones.sam3d import Sam3d
    from umdseg.backbones.voxtell.backbone import Voxtell
    from umdseg.preflight.plans.clicks import ClickPlan
    from umdseg.preflight.plans.interactive import InteractivePlan
    from umdseg.preflight.plans.nnunet import NnunetPlan
    from umdseg.preflight.plans.slices import SlicePlan
    from umdseg.preflight.plans.voxtell import VoxtellPlan

    own = (
        (Sam2d, SlicePlan),
        (Sam3d, ClickPlan),
        (Nnunet, NnunetPlan),
        (Nninteractive, InteractivePlan),
        (Voxtell, VoxtellPlan),
    )
    kind = next((plan for family, plan in own if isinstance(backbone, family)), WindowPlan)
    made: Plan = kind(settings, backbone, names)
    return made
