"""`umdseg check --probe` on a model of every family: it runs; of random weights it says nothing else."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest

from umdseg.data.phantom import subject
from umdseg.preflight import probe

# asked by class, by clicks, by boxes, by the names of a bank; windows, slices, and loops of their own
ASKED = {
    "vista3d": "class", "ctfm_wholebody": "class", "totalseg_ct": "class", "torch_module": "class",
    "voxtell": "class", "sam_med3d_turbo": "clicks", "nninteractive": "clicks", "sam_vit_b": "clicks",
    "medsam": "boxes", "medsam2": "boxes",
}  # fmt: skip


render = functools.cache(subject.render)


def drawn(seed: int, modality: Any, scanner: Any) -> Any:
    return render(seed, modality, scanner)


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights see nothing at any resolution."""
    monkeypatch.setattr(probe, "SPACING", 20.0)
    monkeypatch.setattr(probe, "MARGIN", 1)
    # the same body for all models is drawn once
    monkeypatch.setattr(subject, "render", drawn)


@pytest.mark.parametrize("model", ASKED)
def test_every_family_is_probed_and_random_weights_say_nothing(models: Any, model: str) -> None:
    backbone = models(model)
    if model == "vista3d":
        # at 1.5 mm it would look through hundreds of windows
        backbone.card = replace(backbone.card, spacing=(20.0,) * 3)
    (found,) = probe.probe(backbone, "fp32")
    assert found.level == "warn"
    assert found.what.startswith("random weights: the model ran on a ct phantom")
    assert f"asked by {ASKED[model]};" in found.what
    assert "says nothing about the card" in found.what


def test_a_pet_model_is_probed_on_pet(models: Any) -> None:
    (found,) = probe.probe(models("seganypet_v2"), "fp32")
    assert "ran on a pet phantom" in found.what


def test_a_model_of_several_scans_is_not_probed_and_says_so(models: Any) -> None:
    (found,) = probe.probe(models("lesiontracer"), "fp32")
    assert found.level == "warn"
    assert "not probed: lesiontracer takes ct and pet of one person together" in found.what


def test_a_model_without_classes_has_nothing_to_probe(models: Any) -> None:
    (found,) = probe.probe(models("unet"), "fp32")
    assert "knows no organ of the phantom by class" in found.what
