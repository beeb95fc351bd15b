"""prompt=box in an evaluation: one box per structure, the same in every scan of a person."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from umdseg import inference
from umdseg.data.dataset import PairedDataset
from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import write_volume
from umdseg.evaluation import EvaluationOptions
from umdseg.evaluation.protocol import evaluate
from umdseg.evaluation.references import drawn_boxes
from umdseg.vocabulary import UNITS, Scan, Subject

STRUCTURES = {"liver": 1, "spleen": 2}
GRIDS = {
    "ct": Grid((20, 16, 12), np.array([[2.0, 0, 0, -19], [0, 2, 0, -15], [0, 0, 2, -11], [0, 0, 0, 1]])),
    "pet": Grid((10, 8, 6), np.array([[-4.0, 0, 0, 18], [0, -4, 0, 14], [0, 0, 4, -10], [0, 0, 0, 1]])),
}
LIVER = ((-12.0, -8.0, -8.0), (4.0, 8.0, 8.0))


def labels(modality, spleen=False):
    """The liver fills `LIVER`; the spleen, where there is one, one voxel."""
    grid = GRIDS[modality]
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    world = grid.to_world(index.reshape(-1, 3)).reshape(*grid.shape, 3)
    array = ((world > LIVER[0]) & (world < LIVER[1])).all(axis=-1).astype(np.int16)
    if spleen:
        array[-1, -1, -1] = 2
    return Volume(array, grid)


class Filler(nn.Module):
    """Fills the box it is given."""

    takes = ()

    def __init__(self) -> None:
        super().__init__()
        self.card = SimpleNamespace(prompts=("box",))
        self.asked = []

    def routed(self, modality):
        return nullcontext()

    def open(self, scan, modality):
        return SimpleNamespace(native=scan.grid, prompt=self.asked.extend, scores=self.scores)

    def scores(self, structures, grid):
        box = next(p.box for p in reversed(self.asked) if p.structure == structures[0])
        index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
        world = grid.to_world(index.reshape(-1, 3)).reshape(*grid.shape, 3)
        inside = ((world > box[0]) & (world < box[1])).all(axis=-1)
        yield slice(0, grid.shape[2]), torch.from_numpy(np.where(inside, 5.0, -5.0))[None]


@pytest.fixture
def subject(tmp_path):
    scans = {}
    for modality in GRIDS:
        truth = labels(modality)
        image, label = tmp_path / f"{modality}.nii.gz", tmp_path / f"{modality}_label.nii.gz"
        write_volume(Volume(truth.array.astype(np.float32), truth.grid), image)
        write_volume(truth, label)
        scans[modality] = Scan(image, modality, UNITS[modality], label)
    return Subject("a", scans)


def run(monkeypatch, subject, **options):
    filler = Filler()
    monkeypatch.setattr(inference, "open", lambda b, scan, modality=None, **_: b.open(scan, modality))
    cases = evaluate(
        filler,
        PairedDataset("cubes", [subject], STRUCTURES),
        [subject],
        options=EvaluationOptions(score_grids=["label"], **options),
        stage="zero_shot",
        model="filler",
        prompts=("box", "point"),
        modalities=("ct", "pet"),
        # the scans of this test are no bodies
        bad_intensity="warn",
        progress=False,
    )
    return filler, cases.set_index(["prompt", "structure", "modality"]).sort_index()


def test_boxes_reach_the_model_and_rows_say_so(monkeypatch, subject) -> None:
    filler, rows = run(monkeypatch, subject)
    assert {prompt.box for prompt in filler.asked} == {LIVER}
    assert all(prompt.kind == "box" for prompt in filler.asked)
    for modality in GRIDS:
        row = rows.loc[("box", "liver", modality)]
        assert (row.status, row.dice, row.clicks, row.condition) == ("ok", 1.0, 0, "")
        assert rows.loc[("box", "spleen", modality)].status == "empty_reference"
        assert rows.loc[("point", "liver", modality)].status == "prompt_unsupported"


def test_loose_boxes_cost_what_they_add(monkeypatch, subject) -> None:
    """8 x 8 x 8 voxels of the CT grow by one on each side: Dice = 2 * 512 / (512 + 1000)."""
    _, rows = run(monkeypatch, subject, box_margin_mm=2.0)
    assert rows.loc[("box", "liver", "ct")].dice == pytest.approx(1024 / 1512)
    first, _ = run(monkeypatch, subject, box_jitter_mm=3.0)
    again, _ = run(monkeypatch, subject, box_jitter_mm=3.0)
    # the same for both scans and in every run
    assert {prompt.box for prompt in first.asked} == {prompt.box for prompt in again.asked} != {LIVER}
    assert len({prompt.box for prompt in first.asked}) == 1


def test_a_box_from_another_scan_says_whose() -> None:
    references = {"ct": labels("ct"), "pet": labels("pet", spleen=True)}
    boxes = drawn_boxes(references, "ct", STRUCTURES, 0.0, 0.0, seed=0, subject="a")
    assert boxes["liver"].condition == ""
    assert boxes["spleen"].condition == "box_from_pet"
    # the PET's last voxel: centre -18, -14, 10, 4 mm wide
    assert boxes["spleen"].box == ((-20.0, -16.0, 8.0), (-16.0, -12.0, 12.0))
