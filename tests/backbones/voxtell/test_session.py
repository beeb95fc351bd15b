"""Whole scans: the package's own predictor, from its own file reading to its own files, gives the same."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

pytest.importorskip("voxtell.inference.predictor")

from voxtell.inference.predictor import VoxTellPredictor

from umdseg import inference
from umdseg.backbones.voxtell.model import VoxtellOptions, voxtell
from umdseg.data.geometry import Grid, Volume, reoriented
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

SHAPE = (36, 30, 41)


def load(folder):
    return voxtell(VoxtellOptions(name="voxtell", folder=str(folder))).eval()


def oblique(spacing, degrees, flips):
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ np.diag(np.array(flips) * spacing)
    affine[:3, 3] = (37.0, -112.0, 410.0)
    return affine


def scan(affine, shape=SHAPE):
    """Noise in a box; zeros around it, unevenly."""
    array = np.zeros(shape, dtype=np.float32)
    array[4:31, 2:29, 5:38] = np.random.default_rng(1).normal(40, 200, (27, 27, 33))
    return Volume(array, Grid(shape, affine))


def official(folder):
    bank = folder.parent / "embeddings" / "voxtell_v1.1" / "text_embeddings.npz"
    predictor = VoxTellPredictor(str(folder), torch.device("cpu"), embedding_bank=str(bank))
    return predictor


def logits(session, names, grid=None):
    return torch.cat([part for _, part in session.scores(names, grid)], dim=-1)


# flipped, anisotropic, oblique, and with axes swapped
AFFINES = [
    oblique((0.9, 0.9, 3.0), 0, (-1, -1, 1)),
    oblique((1.5, 1.0, 2.0), 25, (1, -1, -1)),
    oblique((1.0, 1.2, 1.4), 10, (1, 1, 1))[:, [2, 0, 1, 3]],
]


@pytest.mark.parametrize("affine", AFFINES)
def test_masks_are_those_the_package_writes(folder, tmp_path, affine):
    volume = scan(affine)
    nib.save(nib.Nifti1Image(volume.array, affine), tmp_path / "scan.nii.gz")
    files = official(folder).predict_from_files(
        str(tmp_path / "scan.nii.gz"), tmp_path / "out", ["liver", "Left kidney"]
    )
    theirs = np.stack([np.asarray(nib.load(file).dataobj) > 0 for file in files])
    session = inference.open(load(folder), volume, "mr")
    ours = logits(session, ["liver", "kidney_left"])
    session.prompt([Prompt("kidney_left", "text", text="left kidney")])
    assert torch.equal(logits(session, ["liver"])[0], ours[0])
    for found, expected in ((ours[0], theirs[0]), (logits(session, ["kidney_left"])[0], theirs[1])):
        assert 500 < expected.sum() < expected.size - 500
        assert np.array_equal(found.numpy() > 0, expected)
    # outside the cropped box nobody looked
    assert bool((ours[:, :4] == -10).all())


def test_another_grid_gets_the_logits_linearly(folder):
    volume = scan(AFFINES[1])
    session = inference.open(load(folder), volume, "ct")
    own = logits(session, ["aorta"])[0]
    turned = reoriented(volume.grid, "PSR")
    again = nib.orientations.apply_orientation(
        own.numpy(),
        nib.orientations.ornt_transform(
            nib.io_orientation(volume.grid.affine), nib.orientations.axcodes2ornt("PSR")
        ),
    )
    found = logits(session, ["aorta"], turned)[0].numpy()
    np.testing.assert_allclose(found, again, rtol=0, atol=2e-3)
    # half way between two voxels, the mean
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.to_world(np.array([[10.5, 9, 9]]))[0]
    between = logits(session, ["aorta"], Grid((5, 5, 5), affine))[0]
    expected = (own[10:15, 9:14, 9:14] + own[11:16, 9:14, 9:14]) / 2
    torch.testing.assert_close(between, expected, rtol=0, atol=2e-3)


def test_prompts_replace_each_other_and_undo_takes_them_back(folder):
    session = inference.open(load(folder), scan(AFFINES[0]), "pet")
    plain = logits(session, ["liver"])
    session.prompt([Prompt("liver", "text", text="A large  lesion in the liver")])
    lesion = logits(session, ["liver"])
    assert not torch.equal(plain, lesion)
    session.undo()
    session.undo()
    assert torch.equal(logits(session, ["liver"]), plain)


def test_groups_are_the_union_of_their_members(folder):
    session = inference.open(load(folder), scan(AFFINES[0]), "ct")
    found = logits(session, ["kidney", "kidney_left", "kidney_right"])
    assert torch.equal(found[0], torch.maximum(found[1], found[2]))
    assert not torch.equal(found[1], found[2])


def test_what_cannot_be_asked_is_refused_with_the_nearest_text(folder):
    session = inference.open(load(folder), scan(AFFINES[0]), "ct")
    with pytest.raises(UserError, match="did you mean: a large lesion in the liver"):
        session.prompt([Prompt("liver", "text", text="large lesion in liver")])
    with pytest.raises(UserError, match="did you mean: spleen"):
        logits(session, ["spleeen"])
    with pytest.raises(UserError, match="no 'point' prompts"):
        session.prompt([Prompt("liver", "point", ((0.0, 0.0, 0.0),), (1,))])
    with pytest.raises(UserError, match="nothing but 0"):
        inference.open(load(folder), Volume(np.zeros(SHAPE), Grid(SHAPE, np.eye(4))), "ct")


def test_bfloat16_is_close_to_float32_and_nothing_is_printed(folder, capfd):
    backbone, volume = load(folder), scan(AFFINES[0])
    full, half, auto = (
        logits(inference.open(backbone, volume, "ct", precision=precision), ["liver"])
        for precision in ("fp32", "bf16", "auto")
    )
    assert torch.equal(full, auto)
    assert not torch.equal(full, half)
    assert float(((full > 0) == (half > 0)).float().mean()) > 0.95
    assert capfd.readouterr().out == ""
