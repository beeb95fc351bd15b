"""What `umdseg check` expects of every model, against the work a real session of it does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from umdseg import inference, registry
from umdseg.backbones import Backbone
from umdseg.backbones.sam2d import video
from umdseg.config.check import check
from umdseg.config.schema import Settings
from umdseg.data.geometry import Grid, Volume
from umdseg.inference.together import open_together
from umdseg.preflight.cost import counted
from umdseg.preflight.plans import plan_of
from umdseg.vocabulary import Prompt

SHAPE = (26, 22, 10)


def settings_of(models: Any, name: str) -> Settings:
    """With the options that the reduced model was built from."""
    with models.shrunk(name) as options:
        own = dict(options)
    factory = registry.resolve("model", name)
    made = getattr(factory, "Options", None)
    settings = check("evaluate", [])
    if made is None:
        return settings
    return replace(settings, model=made(**{"name": name, "weights": "random", **own}))


def scan() -> Volume:
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = (-80, -70, 400)
    noise = np.random.default_rng(0).normal(100, 30, SHAPE).astype(np.float32)
    return Volume(noise, Grid(SHAPE, affine))


def asked(backbone: Backbone, names: list[str], grid: Grid) -> list[Prompt]:
    """By class where possible; else a box of all slices, so that every slice counts, or a click."""
    kinds = backbone.card.prompts
    if "auto" in kinds:
        return []
    corners = grid.to_world(np.array([[3, 3, -0.5], [22, 18, SHAPE[2] - 0.5]], dtype=float)).tolist()
    low, high = tuple(corners[0]), tuple(corners[1])
    if "box" in kinds and backbone.card.output != "mask":
        return [Prompt(name, "box", box=(low, high)) for name in names]  # type: ignore[arg-type]
    x, y, z = grid.to_world(np.array([[14.0, 12.0, 5.0]]))[0].tolist()
    return [Prompt(name, "point", ((x, y, z),), (1,)) for name in names]


# one of every plan, and of several networks or scans
MODELS = ("unet", "nnunet", "totalseg_ct", "lesiontracer", "sam_vit_b", "medsam2", "sam_med3d_turbo",
          "nninteractive", "voxtell")  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("model", MODELS)
def test_the_expected_work_is_the_work_that_is_done(
    models: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = models(model)
    if model == "unet":
        backbone.add_structures(["liver", "spleen"])
    # torch's counter stumbles over parameters that are handed on as they are
    backbone.requires_grad_(False)
    if model == "medsam2":
        # it stops where it sees nothing, and random weights see little
        low = video._low
        monkeypatch.setattr(video, "_low", lambda *given, **more: low(*given, **more).abs() + 1)
    if model == "nninteractive":
        # how often it zooms out nobody can know
        backbone.autozoom = False
    volume, settings = scan(), settings_of(models, model)
    known = list(backbone.card.structures)
    # of several networks, those of the last structure run, too
    names = [known[0], known[-1]] if len(known) > 1 else known or ["liver", "spleen"]
    if "auto" not in backbone.card.prompts:
        names = names[:1]
    if model == "sam_med3d_turbo":
        backbone.windows = 3
    prompts = asked(backbone, names, volume.grid)
    kind = prompts[0].kind if prompts else "auto"

    def run() -> None:
        if backbone.takes:
            session = open_together(backbone, dict.fromkeys(backbone.takes, volume), precision="fp32")
        else:
            session = inference.open(backbone, volume, "ct", precision="fp32", skip_air=False)
        if prompts:
            session.prompt(prompts)
        for _ in session.scores(names):
            pass

    done = counted(run)
    plan = plan_of(settings, backbone.to("meta"), names)
    passes = plan.passes(volume.grid, [kind], names)
    expected = sum(passes[step.one] * step.cost.flops for step in plan.steps)
    told = {step.one: (passes[step.one], step.cost.flops) for step in plan.steps}
    # SAM 2 has little to remember on the first slices
    least = 0.5 if model == "medsam2" else 0.8
    assert least <= done.flops / expected <= 1.2, told
