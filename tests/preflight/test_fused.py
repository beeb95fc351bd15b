"""What a fusion costs: the rule of the estimate against fused models that really run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from umdseg import fusion
from umdseg.backbones import load_backbone
from umdseg.data.geometry import Grid
from umdseg.data.verdict import Finding
from umdseg.fusion import FusionOptions, save_fusion
from umdseg.fusion.early import EarlyOptions
from umdseg.fusion.gated import GatedOptions
from umdseg.fusion.late import LateOptions
from umdseg.fusion.presence import drop
from umdseg.preflight import estimate
from umdseg.preflight.check import Check
from umdseg.preflight.cost import counted
from umdseg.preflight.fused import Joined
from umdseg.preflight.look import look
from umdseg.vocabulary import Prompt

EDGES = (24, 16, 16)
ALL = ("ct", "pet", "mr")
OPTIONS: list[FusionOptions] = [EarlyOptions(), GatedOptions(), LateOptions()]


@pytest.fixture(autouse=True)
def _no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known pace, so that the estimate can be computed by hand."""
    monkeypatch.setattr(estimate, "throughput", lambda *_: 1e12)
    monkeypatch.setattr(estimate, "product_throughput", lambda *_: 1e12)
    monkeypatch.setattr(estimate, "writing", lambda *_: math.inf)


def checks(door: str, csv: Path, *overrides: str) -> dict[str, Check]:
    found = look(door, ["data=petct", f"data.manifest={csv}", "prompt=auto", *overrides])
    return {check.name: check for check in found}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: o.name)
def test_a_fused_pass_costs_what_the_rule_says(options: FusionOptions) -> None:
    prompts = [Prompt("liver"), Prompt("spleen")]
    plain = load_backbone("vista3d_tiny", "random").eval()
    with torch.no_grad():
        one = counted(lambda: plain.decode(plain.encode(torch.rand(1, 1, *EDGES)), prompts))
    fused = fusion.build(options, plain, ALL, "ct", ("liver", "spleen"))
    with torch.no_grad():
        whole = counted(lambda: fused.decode(fused.encode(torch.rand(1, 3, *EDGES)), prompts))
    passes = Joined.of(fused, ALL).passes
    # what a fusion computes of its own is small; a decoder that answers once is less than the rule
    assert passes == (1 if options.name == "early" else 3)
    assert 0.5 * passes * one.flops < whole.flops < 1.1 * passes * one.flops
    assert whole.peak_bytes < 1.3 * passes * one.peak_bytes


@pytest.mark.parametrize(("count", "dropout"), [(2, 0.5), (3, 0.25), (3, 0.8), (2, 0.0)])
def test_the_mean_number_of_scans_is_that_of_modality_dropout(count: int, dropout: float) -> None:
    plain = load_backbone("vista3d_tiny", "random")
    fused = fusion.build(GatedOptions(dropout=dropout), plain, ALL[:count])
    present = torch.ones(20_000, count, dtype=torch.bool)
    drawn = drop(present, dropout, np.random.default_rng(0)).sum(1).double()
    wanted = Joined.of(fused, ALL).mean_passes
    assert abs(float(drawn.mean()) - wanted) <= 4 * float(drawn.std()) / math.sqrt(len(drawn))


def test_every_subset_that_a_subject_has_lies_on_the_grid_of_the_scan_that_leads() -> None:
    plain = load_backbone("vista3d_tiny", "random")
    fused = fusion.build(GatedOptions(), plain, ("ct", "pet"))
    grids = {Path(m): Grid((n, n, n), np.eye(4)) for m, n in (("ct", 8), ("pet", 5))}
    scans = {m: SimpleNamespace(image=Path(m)) for m in ("ct", "pet")}
    joined = Joined.of(fused, ("ct", "pet"))
    both, alone = (SimpleNamespace(scans=part) for part in (scans, {"pet": scans["pet"]}))
    found = [(grid.shape[0], passes) for grid, passes in joined.scored(both, grids)]
    assert sorted(found) == [(5, 1), (8, 1), (8, 2)]
    assert [(grid.shape[0], n) for grid, n in joined.scored(alone, grids)] == [(5, 1)]
    only = Joined.of(fusion.build(GatedOptions(subsets=False), plain, ("ct", "pet")), ("ct", "pet"))
    assert [(grid.shape[0], n) for grid, n in only.scored(both, grids)] == [(8, 2)]


def test_the_table_says_what_is_fused_and_counts_it(bodies: Callable) -> None:
    csv = bodies(4)
    single = checks("train", csv)
    fused = checks("train", csv, "fusion=gated", "fusion.dropout=0")
    assert "ct+pet, ct leads" in fused["fusion"].numbers
    windows = {name: _windows(found["time"].numbers) for name, found in (("a", single), ("b", fused))}
    # of two test subjects, before and after; fused: CT and PET before, and after CT, PET, and both on the CT
    ct, pet = 2 * _of("ct"), 2 * _of("pet")
    assert windows["a"] == [(2, ct + pet)]
    assert windows["b"] == [(1, ct + pet), (1, ct + pet + 2 * ct)]
    assert _number(fused["memory"].numbers, "fitting ") > 1.5 * _number(single["memory"].numbers, "fitting ")


def test_what_cannot_be_fused_is_refused_before_the_run(bodies: Callable) -> None:
    found = checks(
        "train", bodies(2), "fusion=gated", "data.train_modalities={ct:0,pet:1}", "data.reference=pet"
    )
    assert "fusion 'gated' of pet" in " ".join(f.what for f in _refused(found["fusion"]))
    assert "time" not in found


def test_a_saved_fusion_is_tried_on_the_model(bodies: Callable, tmp_path: Path) -> None:
    csv, folder = bodies(2), tmp_path / "run" / "fusion"
    fused = fusion.build(GatedOptions(), load_backbone("vista3d_tiny"), ("ct", "pet"))
    save_fusion(fused, folder)
    found = checks("evaluate", csv, f"fusion.path={folder}")
    assert not _refused(found["fusion"])
    assert _windows(found["time"].numbers) == [(1, 3 * _of("ct") + _of("pet"))]
    # without weights at hand it cannot be tried, and costs what it costs
    found = checks("evaluate", csv, f"fusion.path={folder}", "model.weights=random")
    assert "not tried" in found["fusion"].numbers
    assert _windows(found["time"].numbers) == [(1, 3 * _of("ct") + _of("pet"))]
    save_fusion(fused, tmp_path / "other" / "fusion", adapter="0" * 64)
    found = checks("evaluate", csv, f"fusion.path={tmp_path / 'other' / 'fusion'}")
    assert "trained with another adapter" in " ".join(f.what for f in _refused(found["fusion"]))


def _refused(check: Check) -> list[Finding]:
    return [finding for finding in check.findings if finding.level == "refuse"]


def _windows(told: str) -> list[tuple[int, int]]:
    """(times, windows) of every round of predicting in the line about time."""
    parts = [part for part in told.replace("(", ", ").split(", ") if " x predicting " in part]
    return [(int(p.split(" x ")[0]), int(p.split(" x predicting ")[1].split()[0])) for p in parts]


def _of(modality: str) -> int:
    """Windows of one scan of the bodies, by hand.

    On voxels of 6 mm the CT's 48 x 36 x 30 of 8 mm are 64 x 48 x 40, which one window of 72 x 48 x 64 holds;
    the PET's 40 x 30 x 24 of 10 mm are 67 x 50 x 40, which takes two.
    """
    return {"ct": 1, "pet": 2}[modality]


def _number(told: str, after: str) -> float:
    value, unit = told.split(after)[1].split()[:2]
    return float(value) * (1e9 if unit.startswith("GB") else 1e6)
