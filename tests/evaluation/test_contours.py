"""prompt=lasso and scribble in an evaluation: one line per structure, the same in every scan of a person."""

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
from umdseg.data.io.nifti import read_label, write_volume
from umdseg.data.sources.sts import StsOptions, StsSource
from umdseg.evaluation import EvaluationOptions
from umdseg.evaluation.contours import drawn_contours
from umdseg.evaluation.protocol import evaluate
from umdseg.prompts.raster import mark
from umdseg.vocabulary import UNITS, Scan, Subject

STRUCTURES = {"liver": 1, "spleen": 2}
GRIDS = {
    "ct": Grid((20, 16, 12), np.array([[2.0, 0, 0, -19], [0, 2, 0, -15], [0, 0, 2, -11], [0, 0, 0, 1]])),
    "pet": Grid((10, 8, 6), np.array([[-4.0, 0, 0, 18], [0, -4, 0, 14], [0, 0, 4, -10], [0, 0, 0, 1]])),
}
# a column of 16 x 12 mm whose slices all are alike
LIVER = ((-12.0, -8.0, -8.0), (4.0, 4.0, 8.0))


def world(grid):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    return grid.to_world(index.reshape(-1, 3)).reshape(*grid.shape, 3)


def labels(modality, spleen=False):
    """The liver fills `LIVER`; the spleen, where there is one, one voxel."""
    grid = GRIDS[modality]
    array = ((world(grid) > LIVER[0]) & (world(grid) < LIVER[1])).all(axis=-1).astype(np.int16)
    if spleen:
        array[-1, -1, -1] = 2
    return Volume(array, grid)


class Extruder(nn.Module):
    """Takes what a contour marks on its slice through all slices of the liver."""

    def __init__(self, kinds) -> None:
        super().__init__()
        self.card, self.takes = SimpleNamespace(prompts=kinds), ()
        self.asked = []

    def routed(self, modality):
        return nullcontext()

    def open(self, scan, modality):
        return SimpleNamespace(native=scan.grid, prompt=self.asked.extend, scores=self.scores)

    def scores(self, structures, grid):
        prompt = next(p for p in reversed(self.asked) if p.structure == structures[0])
        marked = mark(prompt.contours[0], grid, (1.0, 1.0, 1.0))
        inside = np.zeros(grid.shape, dtype=bool)
        x, y, _ = (slice(a, b) for a, b in zip(marked.start, marked.stop, strict=True))
        inside[x, y] = marked.mask.any(axis=2, keepdims=True)
        z = world(grid)[..., 2]
        inside &= (z > LIVER[0][2]) & (z < LIVER[1][2])
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


def run(monkeypatch, subject, kinds=("lasso", "scribble"), **options):
    model = Extruder(kinds)
    monkeypatch.setattr(inference, "open", lambda b, scan, modality=None, **_: b.open(scan, modality))
    cases = evaluate(
        model,
        PairedDataset("columns", [subject], STRUCTURES),
        [subject],
        options=EvaluationOptions(score_grids=["label"], **options),
        stage="zero_shot",
        model="extruder",
        prompts=("lasso", "scribble"),
        modalities=("ct", "pet"),
        # the scans of this test are no bodies
        bad_intensity="warn",
        progress=False,
    )
    return model, cases.set_index(["prompt", "structure", "modality"]).sort_index()


def test_contours_reach_the_model_and_rows_say_so(monkeypatch, subject) -> None:
    model, rows = run(monkeypatch, subject)
    for kind in ("lasso", "scribble"):
        (contour,) = {prompt.contours[0] for prompt in model.asked if prompt.kind == kind}
        assert contour.closed == (kind == "lasso")
        for modality in GRIDS:
            assert rows.loc[(kind, "spleen", modality)].status == "empty_reference"
            row = rows.loc[(kind, "liver", modality)]
            assert (row.status, row.clicks, row.condition) == ("ok", 1, "")
    # both grids have the liver's faces between their voxels
    assert rows.loc[("lasso", "liver")].dice.tolist() == [1.0, 1.0]
    assert (rows.loc[("scribble", "liver")].dice < 0.6).all()


def test_loose_lassos_cost_what_they_add(monkeypatch, subject) -> None:
    """8 x 6 pixels grow by one on each side; the centres at the new corners are 1.4 mm off the old ones."""
    model, rows = run(monkeypatch, subject, box_margin_mm=2.0)
    assert rows.loc[("lasso", "liver", "ct")].dice == pytest.approx(2 * 48 / (48 + 10 * 8))
    tight, _ = run(monkeypatch, subject)
    loose, _ = run(monkeypatch, subject, box_jitter_mm=3.0)
    again, _ = run(monkeypatch, subject, box_jitter_mm=3.0)

    def lines(model, kind):
        return {prompt.contours for prompt in model.asked if prompt.kind == kind}

    # the same for both scans and in every run
    assert lines(loose, "lasso") == lines(again, "lasso") != lines(tight, "lasso")
    assert len(lines(loose, "lasso")) == 1
    assert lines(loose, "scribble") == lines(tight, "scribble") == lines(model, "scribble")


def test_models_that_take_none_say_so(monkeypatch, subject) -> None:
    model, rows = run(monkeypatch, subject, kinds=("box",))
    assert not model.asked
    assert set(rows.status) == {"prompt_unsupported"}


@pytest.mark.parametrize("kind", ["lasso", "scribble"])
def test_a_contour_from_another_scan_says_whose(kind) -> None:
    references = {"ct": labels("ct"), "pet": labels("pet", spleen=True)}
    drawn = drawn_contours(references, "ct", STRUCTURES, kind, 0.0, 0.0, seed=0, subject="a")
    assert drawn["liver"].condition == ""
    assert drawn["spleen"].condition == f"{kind}_from_pet"
    # the PET's last voxel: centre -18, -14, 10, 4 mm wide
    points = np.array(drawn["spleen"].contour.points)
    np.testing.assert_allclose(points[:, 2], 10.0)
    low, high = ((-20, -16), (-16, -12)) if kind == "lasso" else ((-18, -14), (-18, -14))
    np.testing.assert_allclose(points[:, :2].min(axis=0), low, atol=0.1)
    np.testing.assert_allclose(points[:, :2].max(axis=0), high, atol=0.1)


def test_contours_of_real_patients_mark_the_structure_in_every_scan(shared_data) -> None:
    dataset = StsSource(StsOptions(root=str(shared_data / "sts_pet_ct_mr"))).load(0)
    for subject in dataset.subjects[:3]:
        found = {m: read_label(scan.label) for m, scan in subject.scans.items()}
        for kind in ("lasso", "scribble"):
            told = {"margin_mm": 0.0, "jitter_mm": 0.0, "seed": 0, "subject": subject.id}
            drawn = drawn_contours(found, subject.reference(), {"tumour": 1}, kind, **told)["tumour"]
            for modality, label in found.items():
                marked = mark(drawn.contour, label.grid, (2.0, 2.0, 2.0))
                place = tuple(slice(a, b) for a, b in zip(marked.start, marked.stop, strict=True))
                inside = label.array[place] == 1
                assert inside[marked.mask].mean() > 0.95, (subject.id, modality, kind)
                if kind == "lasso":
                    # all of the section, on grids of other voxels too
                    assert marked.mask[inside].mean() > 0.95, (subject.id, modality)
